"""Commands in the docs: how a test runs each program other than `calibrl`, and which commands no test runs.

`tests/unit/test_docs.py` fails for a command that is in neither `WAYS` nor `NOT_RUN`.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.support import ROOT
from tests.support.waiting import LIMIT_SECONDS

BIN = Path(sys.prefix, "bin")
# Commands by their first words, and the reason why no test runs them.
NOT_RUN = {
    "calibrl study": "takes minutes: tests/e2e/test_study.py runs a study with few steps",
    "calibrl bisect": "needs a job with a health alert: tests/integration/test_api_bisections.py",
    "calibrl up": "runs until Ctrl-C: the stack of the test was started by it",
    "calibrl projects add": "the stack of the test has the project: tests/integration/test_api_conventions.py",
    "calibrl submit pipeline.yaml": "takes minutes: tests/unit/calibrl/test_init.py submits it to a fake service",
    "calibrl demo": "takes minutes: tests/e2e/test_demo.py runs it with few steps",
    "calibrl judge": "asks a person: tests/unit/calibrl/test_verdict_commands.py answers",
    "calibrl export mlflow": "needs the extra `mlflow`: tests/integration/test_exports.py runs it with MLflow",
    "calibrl submit my.yaml --set algorithm.type=brevity": "needs a package: tests/integration/test_extend.py",
    "python -m pip install org-calibrl": "the reader's package: tests/integration/test_extend.py installs the page",
    "pip install pre-commit": "needs a package index",
    "pre-commit install": "would change the git hooks of this checkout",
    "git pull": "needs a remote repository",
}
# Values that Compose refuses to run without.
SECRETS = {"POSTGRES_PASSWORD": "p", "REDIS_PASSWORD": "r", "CALIBRL_API_KEY": "k" * 32}

T = TypeVar("T")


@dataclass(frozen=True)
class Scene:
    """Place where commands run: a folder with the files that the docs name, the data folder of a running stack, the
    folder of a built wheel, and the values of `$NAME`."""

    folder: Path
    data: Path
    dist: Path
    variables: Mapping[str, str]


@dataclass(frozen=True)
class Command:
    """A command that ends by itself, and its working folder."""

    words: list[str]
    folder: Path


Way = Callable[[list[str], Scene], Command]


def named(words: list[str]) -> list[str]:
    """Return a command without the path of the environment: `.venv/bin/pip` is `pip`."""
    return [words[0].removeprefix(".venv/bin/"), *words[1:]]


def match(table: Mapping[str, T], words: list[str]) -> T | None:
    """Return the entry whose key has the most first words of the command, or None."""
    keys = [key for key in table if named(words)[: len(key.split())] == key.split()]
    return table[max(keys, key=len)] if keys else None


def run(words: list[str], scene: Scene) -> str | None:
    """Run a command of the docs to its end; return its failure."""
    way = match(WAYS, words)
    assert way is not None, f"no way to run {' '.join(words)}"
    command = way(named(words), scene)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CALIBRL_"))}
    variables = inherited | {"PATH": f"{BIN}{os.pathsep}{os.defpath}", "PYTHONPATH": str(ROOT), **scene.variables}
    try:
        done = subprocess.run(
            command.words, cwd=command.folder, env=variables, capture_output=True, text=True, timeout=LIMIT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"{' '.join(command.words)}: no end within {LIMIT_SECONDS:.0f} s"
    output = done.stdout + done.stderr
    # pip ends with 0 for an extra that does not exist.
    if done.returncode == 0 and "does not provide the extra" not in output:
        return None
    return f"{' '.join(command.words)}: exit code {done.returncode}: {output[-2000:]}"


# ---- Ways to run a command


def _shell(words: list[str], scene: Scene) -> Command:
    """Run a command that acts on the shell itself; `calibrl` must then be a command."""
    line = " ".join(words).replace(".venv/bin/activate", f"'{BIN}/activate'")
    return Command(["bash", "-c", f"{line} && command -v calibrl"], scene.folder)


def _completion(words: list[str], scene: Scene) -> Command:
    """Install the completion in a home of the test, and check that bash reads it."""
    line = f"HOME='{scene.folder}'; {' '.join(words)} && . ~/.bashrc && complete -p calibrl"
    return Command(["bash", "-c", line], scene.folder)


def _make(words: list[str], scene: Scene) -> Command:
    """List the commands of a target: they take minutes, and `make test` would run the tests again."""
    return Command(["make", "-n", *words[1:]], ROOT)


def _copy(words: list[str], scene: Scene) -> Command:
    return Command(["cp", str(ROOT / words[1]), *words[2:]], scene.folder)


def _compose(words: list[str], scene: Scene) -> Command:
    """Let Compose check the file and the options before the command: no test has Docker."""
    assert words[1] == "compose"
    values = scene.folder / "compose.env"
    values.write_text("".join(f"{name}={value}\n" for name, value in SECRETS.items()))
    options = words[2 : words.index("up")]
    return Command(["docker-compose", "--env-file", str(values), *options, "config", "--quiet"], ROOT)


def _pip(words: list[str], scene: Scene) -> Command:
    """Resolve the package and its extra against the built wheel or the checkout, without dependencies: no network."""
    offline = ["--dry-run", "--ignore-installed", "--no-deps", "--no-index", "--no-build-isolation"]
    pip = [sys.executable, "-m", "pip", "install", *offline, "--find-links", str(scene.dist)]
    return Command([*pip, *words[2:]], ROOT)


def _python(words: list[str], scene: Scene) -> Command:
    """Run a module as it is."""
    return Command([sys.executable, *_filled(words[1:], scene)], ROOT)


def _help(words: list[str], scene: Scene) -> Command:
    """Check the options only: the command takes long, or runs until it is stopped."""
    return Command([str(BIN / words[0]), *_filled(words[1:], scene), "--help"], ROOT)


def _processes(words: list[str], scene: Scene) -> Command:
    """Run a launcher with one process in place of 8."""
    return Command([str(BIN / words[0]), *("1" if word == "8" else word for word in _filled(words[1:], scene))], ROOT)


def _curl(words: list[str], scene: Scene) -> Command:
    """Ask the running service. The receiver of webhooks gets an address that needs no lookup."""
    given = [re.sub(r"\$\{?(\w+)\}?", lambda found: scene.variables[found[1]], word) for word in words[1:]]
    given = [word.replace("example.com", "127.0.0.1:9") for word in given]
    return Command(["curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "60", *given], scene.folder)


def _filled(words: list[str], scene: Scene) -> list[str]:
    """Replace the placeholders of a command."""
    files = {
        "FILE.npz": ROOT / "tests/data/reference_losses.npz",
        "DATA": scene.data,
        "config.json": scene.folder / "config.json",
    }
    return [tempfile.mkdtemp(dir=scene.folder) if word == "DIR" else str(files.get(word, word)) for word in words]


WAYS: dict[str, Way] = {
    ".": _shell,
    "export": _shell,
    "calibrl --install-completion": _completion,
    "make": _make,
    "cp": _copy,
    "docker compose": _compose,
    "pip install": _pip,
    "curl": _curl,
    "celery -A worker.tasks worker": _help,  # tests/integration/test_compose.py starts such a worker
    "accelerate launch": _processes,
    "torchrun": _processes,
    "python -m pytest": _python,
    "python -m calibrl_core.parity": _python,
    "python -m calibrl_core.train": _python,
    "python -m jobs.access.first_admin": _python,
    "python -m worker.janitor": _python,
    "python -m tests.e2e.guide_runs": _python,
    "python -m tests.e2e.screenshots": _help,  # needs Chromium; tests/e2e/test_browser_pages.py opens the same pages
    "python -m tests.e2e.rule_pictures": _help,  # needs Chromium, and replaces the pictures of the docs
}
