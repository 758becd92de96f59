"""Checkpoints that are written while the next steps run."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from calibrl_core.config import BuiltinModel
from calibrl_core.models.policy import load_policy
from calibrl_core.report import EventFile
from calibrl_core.run import checkpoint
from calibrl_core.run.checkpoint import Checkpoints, TrainerState
from calibrl_core.run.host_copies import HostCopies
from calibrl_core.settings.optimizer import OptimizerSettings
from calibrl_core.settings.record import CheckpointSettings
from calibrl_core.step.optimizer import make_optimizer
from calibrl_core.train import train
from tests.support.training import config, of_type
from tests.support.waiting import LIMIT_SECONDS

STEPS: dict[str, Any] = {"steps": 4, "checkpoints": {"every_steps": 1, "keep_last": 4}}


class Watching(EventFile):
    """Calls `at_step` after the metrics of a step are reported."""

    def __init__(self, folder: Path, at_step: Any) -> None:
        super().__init__(folder)
        self._at_step = at_step

    def emit(self, type: str, **fields: Any) -> None:
        super().emit(type, **fields)
        if type == "metrics":
            self._at_step(fields["step"])


def run(folder: Path, at_step: Any = lambda step: None) -> Any:
    report = Watching(folder, at_step)
    try:
        return train(config(**STEPS), report, lambda: False)
    finally:
        report.close()


@pytest.mark.usefixtures("rewarding")
def test_steps_go_on_and_a_kill_meanwhile_loses_only_what_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writing of the second checkpoint ends after the third step; a copy of the folder is what a kill leaves."""
    released, sync = Event(), checkpoint._sync
    folder, left = tmp_path / "run", tmp_path / "killed"

    def held(partial: Path) -> None:
        if partial.name.endswith("2"):
            assert released.wait(LIMIT_SECONDS)
        sync(partial)

    def at_step(step: int) -> None:
        if step == 3:
            shutil.copytree(folder, left)
            released.set()

    monkeypatch.setattr(checkpoint, "_sync", held)
    outcome = run(folder, at_step)
    assert [event["step"] for event in of_type(left, "checkpoint")] == [1]
    assert [path.name for path in Checkpoints(left, CheckpointSettings()).all()] == ["step-000001"]
    assert (left / "checkpoints" / ".partial-step-000002").is_dir()
    assert [event["step"] for event in of_type(folder, "checkpoint")] == [1, 2, 3, 4]
    assert outcome["result"]["last_checkpoint"].endswith("step-000004")
    run(left)
    assert [event["step"] for event in of_type(left, "start")] == [0, 1]
    for file in ("model.safetensors", "optimizer.safetensors"):
        one, other = (load_file(each / "checkpoints" / "step-000004" / file) for each in (folder, left))
        assert one.keys() == other.keys() != set()
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_write_that_fails_ends_the_run_and_leaves_the_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = checkpoint._sync

    def full(partial: Path) -> None:
        if partial.name.endswith("2"):
            raise OSError(28, "No space left on device")
        sync(partial)

    monkeypatch.setattr(checkpoint, "_sync", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000001"]
    assert [event["step"] for event in of_type(tmp_path, "checkpoint")] == [1]
    assert len(of_type(tmp_path, "metrics")) <= 3


def test_an_error_of_training_waits_for_the_checkpoint_and_reports_it(tmp_path: Path) -> None:
    def at_step(step: int) -> None:
        if step == 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(tmp_path, at_step)
    assert [event["step"] for event in of_type(tmp_path, "checkpoint")] == [1]


@pytest.mark.parametrize(("gigabytes", "whole"), [(0.0, True), (16.0, False)])
def test_without_host_memory_the_step_waits_for_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gigabytes: float, whole: bool
) -> None:
    released = Event()
    if not whole:
        monkeypatch.setattr(checkpoint, "_sync", lambda partial: released.wait(LIMIT_SECONDS))
    policy = load_policy(BuiltinModel(builtin="tiny-vlm"))
    saved = Checkpoints(tmp_path, CheckpointSettings(host_gigabytes=gigabytes))
    saved.begin(policy, make_optimizer(policy, OptimizerSettings()), TrainerState(step=1))
    assert (saved.written(waits=False) is not None) == whole
    assert [path.name for path in saved.all()] == (["step-000001"] if whole else [])
    released.set()


def test_copies_stay_within_their_limit_and_do_not_change() -> None:
    """Copies five tensors of 40 bytes: two of them fit, one more is taken, one is about to be copied."""
    source, made = torch.zeros(10), 0

    def tensors() -> Iterator[tuple[str, Tensor]]:
        nonlocal made
        for number in range(5):
            made += 1
            source.fill_(number)  # as an update does
            yield str(number), source

    copies = HostCopies(100)
    thread = Thread(target=copies.put_group, args=(tensors(),))
    thread.start()
    for taken, (name, tensor) in enumerate(copies.group(), start=1):
        assert made <= taken + 3
        assert (name, tensor.tolist()) == (str(taken - 1), [taken - 1] * 10)
    thread.join(LIMIT_SECONDS)
    assert made == 5


def test_either_side_ends_with_the_error_of_the_other() -> None:
    copies = HostCopies(10)
    copies.put_group([])
    assert list(copies.group()) == []
    copies.fail(OSError("full"))
    with pytest.raises(OSError, match="full"):
        copies.put_group([("one", torch.zeros(2))])
    with pytest.raises(OSError, match="full"):
        list(copies.group())
