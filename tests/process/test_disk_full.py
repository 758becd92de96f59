"""A disk that is full, under the real trainer and the fake one: the run says so, and its last checkpoint is whole."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calibrl.schemas import Reason
from calibrl_core.config import TrainConfig
from calibrl_core.report import DISK_FULL_STATUS
from tests.support import ROOT
from tests.support.waiting import LIMIT_SECONDS
from worker.events import ErrorLine, MetricsLine, RunEvent, StartLine
from worker.shipper import read_batch

CONFIG = {
    "model": {"builtin": "tiny-vlm"},
    "data": {"builtin": "digits", "split": "train", "rows": 4},
    "algorithm": {"type": "calibrl", "mini_batches": 1},
    "rollout": {"group_size": 2, "max_completion_tokens": 6},
    "prompts_per_step": 2,
    "steps": 3,
}
REAL, FAKE = "calibrl_core.train", "tests.support.fake_trainer.train"


def train(module: str, run_dir: Path, config: Path, log: Path) -> int:
    command = [sys.executable, "-m", module, str(config), "--run-dir", str(run_dir)]
    with log.open("ab") as output:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, timeout=LIMIT_SECONDS
        ).returncode


def written(path: Path, **changes: Any) -> Path:
    path.write_text(TrainConfig.model_validate(CONFIG | changes).model_dump_json())
    return path


def checkpoints(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def events(run_dir: Path) -> list[RunEvent]:
    """Return all events in the file; each line must be a whole event."""
    path = run_dir / "events.jsonl"
    batch = read_batch(path, 0)
    assert (batch.offset, batch.skipped) == (path.stat().st_size, [])
    return batch.events


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_the_last_whole_checkpoint_loads(
    small_disk: Callable[[int], Path], tmp_path: Path
) -> None:
    """There is room for one checkpoint of 16 MB and a part of one. Of the second nothing is left: the error fits."""
    disk = small_disk(60 * 1024)
    (disk / "ballast").write_bytes(bytes(38_000_000))
    run_dir, log = disk / "run", tmp_path / "log.txt"
    config = written(tmp_path / "config.json", checkpoints={"every_steps": 1, "keep_last": 1})
    assert train(REAL, run_dir, config, log) == DISK_FULL_STATUS
    assert checkpoints(run_dir) == ["step-000001"]
    error = events(run_dir)[-1]
    assert isinstance(error, ErrorLine) and error.reason is Reason.DISK_FULL
    assert error.message.startswith("the disk is full: ")
    (disk / "ballast").unlink()
    assert train(REAL, run_dir, config, log) == 0, log.read_text()
    assert checkpoints(run_dir) == ["step-000003"]
    assert [event.step for event in events(run_dir) if isinstance(event, StartLine)] == [0, 1]
    assert [event.step for event in events(run_dir) if isinstance(event, MetricsLine)][-2:] == [2, 3]


def test_a_full_disk_ends_the_fake_trainer_as_it_does_the_real_one(
    small_disk: Callable[[int], Path], tmp_path: Path
) -> None:
    """Its log is on that disk too. After a restart it finds no space and damages no file."""
    disk = small_disk(64)
    config = written(tmp_path / "config.json", steps=1000, prompts_per_step=1, checkpoints={"every_steps": 3})
    for _ in range(2):
        assert train(FAKE, disk / "run", config, disk / "log.txt") == DISK_FULL_STATUS
        names = checkpoints(disk / "run")
        assert names and all((disk / "run" / "checkpoints" / name / "state.json").read_text() for name in names)
        assert [event for event in events(disk / "run") if isinstance(event, MetricsLine)]


@pytest.mark.parametrize("module", [pytest.param(REAL, marks=pytest.mark.slow), FAKE])
def test_a_disk_without_room_for_a_folder(small_disk: Callable[[int], Path], tmp_path: Path, module: str) -> None:
    disk = small_disk(64)
    (disk / "ballast").write_bytes(bytes(64 * 1024))
    log = tmp_path / "log.txt"
    assert train(module, disk / "run", written(tmp_path / "config.json"), log) == DISK_FULL_STATUS


@pytest.mark.slow
def test_a_quota_that_one_checkpoint_exceeds_ends_the_run_with_that_reason(tmp_path: Path) -> None:
    config = written(tmp_path / "config.json", checkpoints={"every_steps": 1, "max_gigabytes": 0.01})
    assert train(REAL, tmp_path / "run", config, tmp_path / "log.txt") == 1
    error = events(tmp_path / "run")[-1]
    assert isinstance(error, ErrorLine) and error.reason is Reason.QUOTA
    assert checkpoints(tmp_path / "run") == ["step-000001"]
