"""Every command and every client program of README and docs runs against a stack that `calibrl up` starts.

The service's trainer is the one that needs no torch. Each command gets what it names: `JOB` is a finished job, `ID`
fits the command, files exist. `tests/support/programs.py` lists the commands that no test runs, with reasons.
"""

import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from calibrl import cli, presets
from calibrl.client import CalibrlError, Client, Stack, read_stack
from calibrl.schemas import JobStatus
from tests.support import documents, programs
from tests.support.documents import Block
from tests.support.fake_hub import folder_files, serving_hub
from tests.support.fake_trainer.run import png
from tests.support.local_stack import start
from tests.support.programs import Scene
from tests.support.qwen_guide import HUB_NAME
from tests.support.waiting import LIMIT_SECONDS, eventually
from tests.support.word_tokenizer import save_word_tokenizer

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3 * LIMIT_SECONDS)]

IMAGE = f"data:image/png;base64,{base64.b64encode(png(80)).decode()}"
ROW = {"question": "What is the sum?", "image": IMAGE, "answer": "7", "expert": "<answer>7</answer>"}
TINY: dict[str, Any] = {"model": {"builtin": "tiny-vlm"}, "data": {"builtin": "digits"}}
ONE_STEP = TINY | {"algorithm": {"type": "grpo", "mini_batches": 1}, "prompts_per_step": 2, "steps": 1}
LONG = 100_000  # steps that no test waits for


def write_files(folder: Path) -> None:
    """Write every file that an example names."""
    shutil.copytree(documents.DOCS / "examples", folder / "docs/examples")
    for name in ("train.jsonl", "validation.jsonl", "test.jsonl"):
        (folder / name).write_text(json.dumps(ROW | {"reference_answer": "7"}) + "\n")
    rows = pyarrow.Table.from_pylist([{"question": "1+1?", "answer": "2", "expert": "<answer>2</answer>"}])
    pyarrow.parquet.write_table(rows, folder / "train.parquet")
    write_geometry(folder)
    save_word_tokenizer(folder / "policy")
    (folder / "my.yaml").write_text(presets.text("calibrl"))
    (folder / "config.json").write_text(json.dumps(ONE_STEP))
    own = ONE_STEP | {"kind": "train", "name": "own", "data": {"path": str(folder / "train.jsonl")}}
    (folder / "job.yaml").write_text(json.dumps(own))


def write_geometry(folder: Path) -> None:
    """Write the files of the guide to Qwen2.5-VL-7B; the model is tiny."""
    from bench.gpu import shapes

    shapes.write_model(folder / HUB_NAME, shapes.SMALL)
    picture = {"bytes": png(80), "path": "1.png"}
    row = {"images": [picture], "problem": "<image>Find x.", "answer": "7", "solution": "<answer>7</answer>"}
    (folder / "geometry").mkdir()
    for name in ("train", "validation"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), folder / f"geometry/{name}.parquet")


class Reader:
    """Runs the commands of the docs, one page after another."""

    def __init__(self, client: Client, stack: Stack, folder: Path) -> None:
        self.client, self.stack, self.folder = client, stack, folder
        self.users = 0
        self.running: list[UUID] = []
        (self.machine,) = [worker.name for worker in client.workers()]
        client.put_project("vision", {})
        splits = [{"builtin": "digits", "split": "test"}]
        models = [{"builtin": "tiny-vlm"}, {"builtin": "tiny-vlm", "seed": 3}]
        evaluation = {"kind": "evaluate", "models": models, "data": splits}
        self.evaluation, self.other = (self.finished({**evaluation, "name": f"evaluation-{n}"}) for n in (1, 2))
        audited = {"model": {"builtin": "tiny-vlm"}, "data": {"path": str(folder / "train.jsonl")}}
        self.audit = self.finished({"kind": "audit", "name": "audit", **audited})
        training = {"algorithm": {"type": "calibrl", "mini_batches": 1}, "prompts_per_step": 4, "steps": 200}
        kept = {"checkpoints": {"every_steps": 100}, "samples": {"every_steps": 50}}
        self.training = self.finished({"kind": "train", "name": "training", **TINY, **training, **kept})

    def finished(self, spec: dict[str, Any]) -> UUID:
        job = self.client.submit(spec)
        assert self.client.wait(job.id, LIMIT_SECONDS).status is JobStatus.SUCCEEDED
        return job.id

    def long_job(self, wanted: JobStatus | None = None) -> UUID:
        """Submit a job that does not end by itself, and bring it into a status."""
        self.free_the_slot()
        spec = {"algorithm": {"type": "grpo", "mini_batches": 1}, "prompts_per_step": 20, "steps": LONG}
        id = self.client.submit({"kind": "train", "name": "long", **TINY, **spec}).id
        self.running.append(id)
        if wanted is not None:
            (self.client.pause if wanted is JobStatus.PAUSED else self.client.cancel)(id)
            eventually(lambda: self.client.job(id).status is wanted)
        return id

    def free_the_slot(self) -> None:
        """Cancel the jobs that do not end by themselves."""
        while self.running:
            with suppress(CalibrlError):
                self.client.cancel(self.running.pop())

    def job_for(self, verb: str) -> UUID:
        """Return a job for which the command makes sense."""
        match verb:
            case "pause" | "cancel" | "priority":
                return self.long_job()
            case "resume":
                return self.long_job(JobStatus.PAUSED)
            case "retry":
                return self.long_job(JobStatus.CANCELLED)
            case "evals" | "compare":
                return self.evaluation
            case "audit":
                return self.audit
        return self.training

    def id_for(self, words: list[str]) -> str:
        match words[1:3]:
            case ["data", _]:
                return str(self.client.upload(self.folder / "train.parquet").id)
            case ["keys", _]:
                return str(json.loads(self.run(["calibrl", "keys", "create", "spare", "--json"]))["id"])
        return str(self.training)

    def filled(self, words: list[str]) -> list[str]:
        """Replace the placeholders of a command."""
        found: dict[str, Callable[[], str]] = {
            "JOB": lambda: str(self.job_for(words[1])),
            "OTHER": lambda: str(self.other),
            "ID1": lambda: str(self.training),
            "ID2": lambda: str(self.training),
            "ID": lambda: self.id_for(words),
            "NAME": lambda: self.machine,
            "FILE": lambda: "out.data",
            "DIR": lambda: "logs",
            "PROMPT": lambda: self.client.prompts(self.training).data[0].prompt,
            "grace": lambda: f"grace{self.users}",
            "https://calibrl.example.com": lambda: self.stack.api_url,
        }
        if words[1:3] == ["users", "add"]:
            self.users += 1
        if words[1] == "pause" and "latest" in words:
            self.long_job()
        return [self._filled(word, found) for word in words]

    def _filled(self, word: str, found: dict[str, Callable[[], str]]) -> str:
        head, separator, tail = word.partition("=") if "=" in word else word.partition(":")
        if head in found and separator == ":" and tail.isdigit():
            return f"{found[head]()}:{tail}"
        if tail in found and separator == "=":
            return f"{head}={found[tail]()}"
        if word in found:
            return found[word]()
        # The address of a webhook needs no lookup then.
        return word.replace("/path/", f"{self.folder}/").replace("https://example.com/", "https://127.0.0.1:9/")

    def run(self, words: list[str]) -> str:
        """Run a command to its end and return its output."""
        given = self.filled(words)
        if given[1] == "watch":
            self.free_the_slot()
        if "docs/examples/warmup.yaml" in given:
            given += ["--set", "steps=20"]  # milliseconds instead of half a minute
        if "docs/examples/qwen-7b.yaml" in given:
            given += ["--set", "resources.gpus=0", "--set", "resources.machines=1"]  # all that the test has
        with asked_by_profile(given):
            result = CliRunner().invoke(cli.app, given[1:], input=f"{self.stack.api_key}\n")
        assert result.exit_code == 0, f"{' '.join(given)}: {result.stderr or result.stdout}"
        return result.stdout


@contextmanager
def asked_by_profile(words: list[str]) -> Iterator[None]:
    """Leave out the address in the environment for commands about profiles: the two contradict each other."""
    with pytest.MonkeyPatch.context() as patch:
        if "--profile" in words or "profiles" in words:
            patch.delenv("CALIBRL_API_URL")
            patch.delenv("CALIBRL_API_KEY")
        yield


@pytest.fixture
def reader(tmp_path: Path, database: str, redis_url: str) -> Iterator[Reader]:
    """Yield a reader of the docs with a running stack and all files, in a separate folder."""
    home, folder = tmp_path / "home", tmp_path / "work"
    folder.mkdir()
    write_files(folder)
    variables = {"DATABASE_URL": database, "REDIS_URL": redis_url, "CALIBRL_WEBHOOKS_TO_PRIVATE": "true"}
    with serving_hub(HUB_NAME, folder_files(folder / HUB_NAME)) as hub:
        variables |= {"HF_ENDPOINT": hub.url, "CALIBRL_ALLOWED_HUB_MODELS": "Qwen/*"}
        up = start(home, CALIBRL_ALLOWED_ROOTS=str(folder), **variables)  # a reader starts it in this folder
        try:
            stack = read_stack(home)
            assert stack is not None
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("CALIBRL_API_URL", stack.api_url)
                patch.setenv("CALIBRL_API_KEY", stack.api_key)
                patch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
                patch.chdir(folder)
                with Client() as client:
                    eventually(client.workers)
                    yield Reader(client, stack, folder)
        finally:
            up.terminate()
            up.communicate(timeout=LIMIT_SECONDS)


@pytest.fixture
def scene(reader: Reader, tmp_path: Path, database: str, redis_url: str) -> Scene:
    """Return the place in which programs other than `calibrl` run, with a built wheel."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=documents.ROOT, check=True, capture_output=True, timeout=LIMIT_SECONDS)
    variables = {
        "CALIBRL_API_URL": reader.stack.api_url,
        "CALIBRL_API_KEY": reader.stack.api_key,
        "CALIBRL_DATA_DIR": str(tmp_path / "home"),
        "DATABASE_URL": database,
        "REDIS_URL": redis_url,
        "ID": str(reader.training),
        "JOB": str(reader.training),
    }
    return Scene(reader.folder, tmp_path / "home", tmp_path / "dist", variables)


def run_program(block: Block, reader: Reader) -> str | None:
    """Run a Python example as a program; return its failure."""
    text = block.text.replace("http://127.0.0.1:8000", reader.stack.api_url)
    text = text.replace("calibrl_...", reader.stack.api_key)
    text = text.replace("/models/policy", str(reader.folder / "policy"))
    names: dict[str, Any] = {"__name__": "__main__"}
    try:
        with redirect_stdout(StringIO()):
            exec(compile(text, block.path, "exec"), names)
    except Exception as error:
        return f"{block.path}:{block.line}: {type(error).__name__}: {error}"
    finally:
        names["client"].close()  # the process of an example ends with it
    return None


def run_command(block: Block, words: list[str], reader: Reader) -> str | None:
    """Run a `calibrl` command; return its failure."""
    try:
        reader.run(words)
    except (AssertionError, CalibrlError) as error:
        return f"{block.path}:{block.line}: {error}"
    return None


def run_lines() -> list[tuple[Block, list[str]]]:
    """Return the commands of the docs that can run in a test."""
    lines = [(block, programs.named(words)) for block, words in documents.command_lines()]
    return [(block, words) for block, words in lines if programs.match(programs.NOT_RUN, words) is None]


def test_every_client_program_in_the_docs_runs(reader: Reader) -> None:
    blocks = [block for block in documents.blocks("python") if re.search(r"(Client|OpenAI)\(", block.text)]
    failed = [run_program(block, reader) for block in blocks]
    assert [failure for failure in failed if failure] == []
    assert len(failed) > 5


def test_every_calibrl_command_in_the_docs_runs(reader: Reader) -> None:
    lines = [(block, words) for block, words in run_lines() if programs.match(programs.WAYS, words) is None]
    failed = [run_command(block, words, reader) for block, words in lines]
    assert not any(failed), "\n".join(filter(None, failed))
    assert len(failed) > 50


def test_every_other_command_in_the_docs_runs(scene: Scene) -> None:
    lines = [(block, words) for block, words in run_lines() if programs.match(programs.WAYS, words)]
    failed = [(f"{block.path}:{block.line}", programs.run(words, scene)) for block, words in lines]
    assert [failure for failure in failed if failure[1]] == []
    assert len(failed) > 40
