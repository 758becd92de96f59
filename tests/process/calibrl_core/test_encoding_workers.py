"""Worker processes that prepare images: the same numbers as without, errors of rows, and how they end."""

import base64
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from calibrl_core.data.row_cache import RowCache
from calibrl_core.data.schema import DataError, Example, FileData
from calibrl_core.evaluation.expert_probe import ExpertProbe
from calibrl_core.models.encoding import PromptEncoder
from calibrl_core.models.encoding_workers import EncodingWorkers
from calibrl_core.models.policy import Policy
from calibrl_core.report import EventFile
from calibrl_core.train import train
from calibrl_core.verifiers.scorer import Scorer
from tests.support.training import config, of_type, score_by_hash
from tests.support.waiting import LIMIT_SECONDS

TRAINER = """
import time
from contextlib import suppress
from multiprocessing import active_children
from types import SimpleNamespace
from calibrl_core.data.schema import Example
from calibrl_core.models.encoding import PromptEncoder
from calibrl_core.models.encoding_workers import EncodingWorkers

if __name__ == "__main__":
    example = Example("rows/1", "q", "1", images=(b"no image",))
    workers = EncodingWorkers(PromptEncoder(SimpleNamespace(chat_template="", image_processor=None), None), 1, 1)
    workers.request([example])
    with suppress(Exception):  # the worker runs now, and has no processor
        workers.take(example)
    print(*[child.pid for child in active_children()], flush=True)
    time.sleep(600)
"""


@pytest.fixture
def encoder(policy: Policy) -> PromptEncoder:
    return PromptEncoder(policy.processor, None)


@pytest.fixture
def workers(encoder: PromptEncoder) -> Iterator[EncodingWorkers]:
    made = EncodingWorkers(encoder, workers=1, most=6)
    yield made
    made.close()
    assert active_children() == []


def same(found: Any, expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in expected.items()
    )


def test_a_worker_encodes_like_the_trainer_and_says_what_it_says(
    workers: EncodingWorkers, encoder: PromptEncoder, examples: list[Example], tmp_path: Path
) -> None:
    first, second, changed = stored(tmp_path, [example.images[0] for example in examples[:3]])
    (tmp_path / "2.png").write_bytes(examples[0].images[0])
    broken = dataclasses.replace(examples[1], id="rows/2", images=(b"no image",))
    text = dataclasses.replace(examples[2], images=())
    workers.request([examples[0], broken, text, examples[3]])
    assert same(workers.take(examples[0]), encoder.processed(examples[0]))
    assert workers.take(text) is None  # quick: not requested
    workers.request([broken, examples[3], examples[4]])  # the first two have been requested already
    with pytest.raises(DataError) as of_worker:
        workers.take(broken)
    with pytest.raises(DataError) as of_trainer:
        encoder.processed(broken)
    assert str(of_worker.value) == str(of_trainer.value)
    assert str(of_worker.value).startswith("rows/2: an image cannot be decoded: it ")
    assert same(workers.take(examples[4]), encoder.processed(examples[4]))
    assert same(workers.take(examples[3]), encoder.processed(examples[3]))
    workers.request([first, second, changed])
    assert same(workers.take(second), encoder.processed(second))
    assert same(workers.take(first), encoder.processed(first))
    with pytest.raises(DataError, match=r"^own/3: .*2\.png has changed since"):
        workers.take(changed)
    (process,) = active_children()

    def lose() -> None:
        os.kill(process.pid or 0, signal.SIGKILL)
        workers.request([examples[5]])
        workers.take(examples[5])

    with pytest.raises(RuntimeError, match=r"data_workers|DataLoader worker"):
        lose()


def stored(folder: Path, images: list[bytes]) -> Iterator[Example]:
    """Yield examples that read their images from a mapped file, or from image files."""
    for number, image in enumerate(images):
        (folder / f"{number}.png").write_bytes(image)
    rows = [{"question": "q", "answer": "1", "image": f"{number}.png"} for number in range(len(images))]
    rows[0]["image"] = base64.b64encode(images[0]).decode()
    (folder / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    yield from RowCache(folder / "rows", 10**9).load(FileData(path=str(folder / "own.jsonl")))


def run(folder: Path, **changes: Any) -> tuple[dict[str, torch.Tensor], list[Any]]:
    """Return the weights of a run, and its metrics without times and memory."""
    report = EventFile(folder)
    train(config(steps=3, checkpoints={"every_steps": 3}, **changes), report, lambda: False)
    report.close()
    values = [event["values"] for event in of_type(folder, "metrics")]
    kept = [{name: value for name, value in one.items() if not name.startswith("perf/")} for one in values]
    return load_file(folder / "checkpoints" / "step-000003" / "model.safetensors"), kept


@pytest.mark.slow
def test_training_with_workers_is_bit_for_bit_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With extra prompts of dynamic sampling and validations, of which the trainer encodes none after the first
    step."""
    monkeypatch.setattr("calibrl_core.models.encoding.ENCODED_MEGABYTES", 0)
    monkeypatch.setattr(Scorer, "grade", score_by_hash)
    monkeypatch.setattr(ExpertProbe, "measure", lambda *given: {})  # encodes prompts again that were dropped
    dapo = {"type": "dapo", "mini_batches": 1, "max_resamples": 1}
    validation = {"data": {"builtin": "digits", "split": "validation", "rows": 5}, "samples": 1, "every_steps": 1}
    changes = {"algorithm": dapo, "data": {"builtin": "digits", "rows": 24}, "validation": validation}  # none twice
    plain = run(tmp_path / "without", data_workers=0, **changes)
    encoded: list[str] = []
    processed = PromptEncoder.processed

    def counting(self: PromptEncoder, example: Example) -> Any:
        encoded.append(example.id)
        return processed(self, example)

    monkeypatch.setattr(PromptEncoder, "processed", counting)
    ahead = run(tmp_path / "with", data_workers=2, **changes)
    assert ahead[1] == plain[1]
    assert all(torch.equal(ahead[0][name], tensor) for name, tensor in plain[0].items())
    assert len(encoded) == 4 + 2 + 2  # lengths at the start, the check of the model, the first step's prompts


@pytest.mark.slow
def test_a_worker_ends_with_a_killed_trainer() -> None:
    command = [sys.executable, "-c", TRAINER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout
        assert select.select([trainer.stdout], [], [], LIMIT_SECONDS)[0]
        ends = [os.pidfd_open(int(pid)) for pid in trainer.stdout.readline().split()]
        trainer.kill()
    assert len(ends) == 1
    poll = select.poll()
    for end in ends:
        poll.register(end, select.POLLIN)
    assert poll.poll(LIMIT_SECONDS * 1000)
