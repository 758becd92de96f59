"""The time of a trainer to end, and the outcomes of the worker's own failures; no process is started."""

import errno
from pathlib import Path

import pytest

from calibrl.schemas import JobStatus, Reason
from jobs.errors import StorageAway, StorageUnavailable
from jobs.lifecycle import Order
from jobs.settings import Settings
from worker import stopping
from worker.attempt_folder import CheckpointsMissing
from worker.outcomes import outcome_of_failure
from worker.stopping import Stopping


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopping, "time", clock)
    return clock


def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, stop_grace_seconds=20, max_stop_grace_seconds=600)


@pytest.mark.parametrize(
    ("order", "longest", "seconds"),
    [
        (Order.PAUSE, 0.0, 20),
        (Order.STOP, 100.0, 150),
        (Order.PAUSE, 1000.0, 600),
        (Order.CANCEL, 100.0, 20),
        (Order.CONTINUE, 100.0, 20),  # a limit of the job
        (Order.END, 100.0, 10),
    ],
)
def test_the_time_follows_recent_steps(
    clock: Clock, tmp_path: Path, order: Order, longest: float, seconds: float
) -> None:
    end = Stopping(tmp_path, settings(tmp_path))
    assert not end.asked and not end.over()
    end.ask(order, longest)
    clock.now += seconds - 0.1
    assert end.asked and not end.over()
    clock.now += 0.2
    assert end.over()


def test_a_cancellation_shortens_the_time_of_a_pause(clock: Clock, tmp_path: Path) -> None:
    end = Stopping(tmp_path, settings(tmp_path))
    end.ask(Order.PAUSE, 1000.0)
    clock.now += 100
    end.hasten()
    clock.now += 19
    end.hasten()
    assert not end.over()
    clock.now += 2
    assert end.over()


def test_a_checkpoint_that_grows_extends_the_time(clock: Clock, tmp_path: Path) -> None:
    end = Stopping(tmp_path, settings(tmp_path))
    partial = tmp_path / "checkpoints" / ".partial-step-000005"
    partial.mkdir(parents=True)
    end.ask(Order.PAUSE, 0.0)
    for size in range(1, 30):
        (partial / "model.safetensors").write_bytes(bytes(size))
        clock.now += 20
        assert not end.over()
    clock.now += 19
    assert not end.over()
    (partial / "model.safetensors").write_bytes(bytes(99))
    clock.now += 2
    assert end.over()  # 601 s


def test_a_checkpoint_that_does_not_grow_does_not(clock: Clock, tmp_path: Path) -> None:
    end = Stopping(tmp_path, settings(tmp_path))
    (tmp_path / "checkpoints" / ".partial-step-000005").mkdir(parents=True)
    end.ask(Order.PAUSE, 0.0)
    clock.now += 20.1
    assert end.over()


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (CheckpointsMissing("none"), JobStatus.PAUSED, None),
        (StorageAway("away"), JobStatus.QUEUED, Reason.STORAGE_AWAY),
        (OSError(errno.EIO, "input/output error"), JobStatus.QUEUED, Reason.STORAGE_AWAY),
        (OSError(errno.ESTALE, "stale file handle"), JobStatus.QUEUED, Reason.STORAGE_AWAY),
        (StorageUnavailable("the file is missing"), JobStatus.FAILED, Reason.CRASHED),
        (OSError(errno.ENOSPC, "no space"), JobStatus.FAILED, Reason.DISK_FULL),
        (ValueError("a fault"), JobStatus.FAILED, Reason.CRASHED),
    ],
)
def test_a_failure_that_can_pass_puts_the_job_back(error: Exception, status: JobStatus, reason: Reason | None) -> None:
    outcome = outcome_of_failure(error, "w")
    assert (outcome.status, outcome.reason) == (status, reason)
