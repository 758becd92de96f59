"""Limits and GPUs of real workers: the trainer is the fake one, and so are the cards, at NVML's own boundary."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import OperationalError

from calibrl.processes import children
from calibrl.processes.children import Process
from calibrl.schemas import JobStatus, Reason, Worker, job_spec_adapter
from jobs import lifecycle
from jobs.db import session_scope
from jobs.lifecycle import machines
from jobs.repository import checkpoints, events, jobs, metrics
from jobs.settings import get_settings
from tests.support import ROOT, fake_nvml, job_steps
from tests.support.fake_nvml import Card
from tests.support.fake_trainer import Behaviour
from tests.support.processes import processes_with
from tests.support.waiting import LIMIT_SECONDS, eventually
from tests.support.worker_jobs import ENDLESS, held_at, submit

pytestmark = pytest.mark.integration

QUICK = {
    "CALIBRL_TRAINER": "tests.support.fake_trainer",
    "CALIBRL_HEARTBEAT_SECONDS": "0.2",
    "CALIBRL_LEASE_SECONDS": "600",
    "CALIBRL_SWEEP_SECONDS": "0.3",
    "CALIBRL_STOP_GRACE_SECONDS": "120",
    "CALIBRL_QUICK_STARTS": "false",
}


@pytest.fixture
def cards(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file with the state of this machine's two GPUs."""
    monkeypatch.chdir(ROOT)
    path = tmp_path / "cards.json"
    fake_nvml.write(path, [Card(), Card()])
    for name, value in (QUICK | fake_nvml.environment(path, {"PYTHONPATH": str(ROOT)})).items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    return path


@pytest.fixture
def worker(cards: Path, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def start(name: str = "w") -> Process:
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "worker.tasks",
            "worker",
            "--without-mingle",
            "-n",
            f"{name}@%h",
        ]
        env = dict(os.environ) | {"CALIBRL_WORKER_NAME": name}
        started.append(children.start(command, log=tmp_path / f"{name}.log", env=env))
        eventually(lambda: [one for one in listed() if one.name == name and sum(gpu.clean for gpu in one.gpus) == 2])
        return started[-1]

    yield start
    for process in started:
        children.stop(process, 0)


def listed() -> list[Worker]:
    with session_scope() as session:
        return machines.page(session, after="", limit=10)


def status(job_id: UUID) -> tuple[JobStatus, Reason | None, str]:
    with session_scope() as session:
        job = jobs.get(session, job_id)
        return job.status, job.reason, job.message or ""


def ended(job_id: UUID) -> tuple[JobStatus, Reason | None, str]:
    eventually(lambda: status(job_id)[0].final)
    return status(job_id)


def steps(job_id: UUID) -> list[int]:
    with session_scope() as session:
        return [row[0] for row in metrics.page(session, job_id, names=None, after_step=-1, limit=10_000)]


def expired(job_id: UUID) -> bool:
    """End the job's lease; False while a stopped process still has the job's row locked."""
    try:
        job_steps.expire(job_id)
    except OperationalError:
        return False
    return True


def processes_of(folder: Path, count: int) -> bool:
    """Return True if at least `count` processes of a job run."""
    return len(processes_with(folder)) >= count


def trainer_sees(job_id: UUID) -> str:
    (pid,) = eventually(lambda: processes_with(get_settings().job_dir(job_id)))
    environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
    (line,) = [one for one in environment if one.startswith("CUDA_VISIBLE_DEVICES=")]
    return line.partition("=")[2]


def test_jobs_get_separate_gpus_which_are_reused_once_their_memory_is_free(
    worker: Callable[..., Process], cards: Path
) -> None:
    worker()
    first, second = (submit(steps=ENDLESS, milliseconds=50, resources={"gpus": 1}) for _ in range(2))
    eventually(lambda: {status(one)[0] for one in (first, second)} == {JobStatus.RUNNING})
    assert {trainer_sees(first), trainer_sees(second)} == {"0", "1"}
    third = submit(steps=2, resources={"gpus": 1})
    freed = int(trainer_sees(first))
    left = [Card(used=60, utilisation=90), Card(used=60, utilisation=90)]
    fake_nvml.write(cards, left)
    with session_scope() as session:
        lifecycle.cancel(session, first, actor="user")
    assert ended(first)[0] is JobStatus.CANCELLED
    before = eventually(lambda: [gpu for gpu in listed()[0].gpus if gpu.memory_used > 50 * 2**30])
    assert len(before) == 2
    assert status(third)[0] is JobStatus.QUEUED  # the card's memory is still full: a ghost may hold it
    left[freed] = Card(used=0.5)
    fake_nvml.write(cards, left)
    assert ended(third)[0] is JobStatus.SUCCEEDED


class Clock:
    """The module `time` with a monotonic clock that a test can put forward."""

    ahead = 0.0  # seconds

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@pytest.fixture
def clock(database: str, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock of the supervisors that run in this process; the machine here has one CPU slot."""
    monkeypatch.chdir(ROOT)
    for name, value in (QUICK | {"CALIBRL_WORKER_NAME": "tester"}).items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    job_steps.machine("tester", cpu_slots=1)  # no heartbeat thread renews it
    job_steps.run("UPDATE workers SET heartbeat_at = now() + interval '1 hour'")
    found = Clock()
    monkeypatch.setattr("worker.supervisor.time", found)
    return found


def test_a_job_that_is_past_its_time_ends_with_its_last_checkpoint(
    clock: Clock, in_background: Callable[[], Future[None]]
) -> None:
    job_id = submit(steps=ENDLESS, milliseconds=50, limits={"timeout_seconds": 3600})
    run = in_background()
    eventually(lambda: steps(job_id))
    clock.ahead = 3600
    run.result(LIMIT_SECONDS)
    assert status(job_id)[:2] == (JobStatus.FAILED, Reason.TIMED_OUT)
    assert "its maximum is 3600 s (limits.timeout_seconds, " in status(job_id)[2]
    with session_scope() as session:
        *_, kept = checkpoints.of_job(session, job_id)
        assert kept.step == jobs.get(session, job_id).step > 0


@pytest.mark.slow
def test_a_job_that_hangs_is_ended_with_all_that_it_started(
    worker: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALIBRL_STOP_GRACE_SECONDS", "0.5")
    worker()
    job_id = submit(steps=4, behaviour=Behaviour.STUBBORN, limits={"no_progress_seconds": 20})
    found = ended(job_id)
    assert found[:2] == (JobStatus.FAILED, Reason.NO_PROGRESS)
    assert "last step: 2" in found[2]
    eventually(lambda: processes_with(get_settings().job_dir(job_id)) == [])


def test_idle_gpus_give_a_warning_and_then_end_the_job(worker: Callable[..., Process]) -> None:
    worker()
    limits = {"min_gpu_utilisation": 20, "gpu_idle_seconds": 1}
    job_id = submit(steps=ENDLESS, milliseconds=50, resources={"gpus": 1}, limits=limits)
    assert ended(job_id)[:2] == (JobStatus.FAILED, Reason.IDLE_GPU)
    with session_scope() as session:
        warned = [one.message for one in events.page(session, job_id, after=0, limit=100) if one.type == "warning"]
    assert len(warned) == 1
    assert "if this continues, the job is ended" in str(warned[0])


@pytest.mark.slow
def test_a_two_gpu_job_trains_in_two_processes_and_resumes_after_a_stop(
    worker: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real trainer, on the CPU."""
    monkeypatch.setenv("CALIBRL_TRAINER", "calibrl_core")
    first = worker("first")
    tiny: dict[str, Any] = {"rollout": {"group_size": 2, "max_completion_tokens": 6}, "prompts_per_step": 2}
    job_id = submit(steps=40, resources={"gpus": 2}, **tiny)
    eventually(lambda: steps(job_id))
    assert children.stop(first, LIMIT_SECONDS) == 0
    assert status(job_id)[:2] == (JobStatus.QUEUED, Reason.WORKER_STOPPED)
    assert 0 < len(steps(job_id)) < 40
    eventually(lambda: processes_with(get_settings().job_dir(job_id)) == [])
    worker("second")
    eventually(lambda: status(job_id)[0].final)
    assert status(job_id)[0] is JobStatus.SUCCEEDED, status(job_id)
    assert steps(job_id) == list(range(1, 41))
    with session_scope() as session:
        assert jobs.get(session, job_id).attempt == 2


@pytest.mark.slow
def test_a_two_gpu_evaluation_runs_in_two_processes(
    worker: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real trainer, on the CPU: the results are those of one process."""
    monkeypatch.setenv("CALIBRL_TRAINER", "calibrl_core")
    worker()
    results = []
    for gpus in (2, 0):
        spec = {
            "kind": "evaluate",
            "name": "a test",
            "models": [{"builtin": "tiny-vlm"}],
            "data": [{"builtin": "digits", "split": "test", "rows": 5}],
            "rollout": {"samples": 2, "max_completion_tokens": 6},
            "resources": {"gpus": gpus},
        }
        with session_scope() as session:
            job_id = lifecycle.submit(session, job_spec_adapter.validate_python(spec), actor="user").id
        if gpus:
            folder = get_settings().job_dir(job_id)
            eventually(partial(processes_of, folder, 3))  # the launcher and its two
        assert ended(job_id)[0] is JobStatus.SUCCEEDED, status(job_id)
        with session_scope() as session:
            results.append(jobs.get(session, job_id).result)
    assert results[0] is not None and results[0] == results[1]


@pytest.mark.slow
def test_a_stopped_slot_gets_no_job_and_its_own_job_resumes_elsewhere(
    worker: Callable[..., Process],
) -> None:
    first = worker("first")
    job_id = submit(steps=100, milliseconds=50, resources={"labels": {}})
    with held_at(job_id, 50):
        eventually(lambda: status(job_id)[0] is JobStatus.RUNNING and processes_with(get_settings().job_dir(job_id)))
        (trainer,) = processes_with(get_settings().job_dir(job_id))
        slot = int(Path(f"/proc/{trainer}/stat").read_text().split()[3])
        assert slot != first.pid
        os.kill(slot, signal.SIGSTOP)
    try:
        eventually(lambda: expired(job_id))
        worker("second")
        assert ended(job_id)[0] is JobStatus.SUCCEEDED
        with session_scope() as session:
            assert jobs.get(session, job_id).attempt == 2
    finally:
        os.kill(slot, signal.SIGCONT)
    eventually(lambda: processes_with(get_settings().job_dir(job_id)) == [])  # the stale one was fenced
