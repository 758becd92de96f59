"""The worker against real PostgreSQL, Valkey and trainer processes; the trainer is the fake one."""

import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
import structlog.testing

from calibrl.processes import children
from calibrl.processes.children import Process
from calibrl.schemas import JobStatus, Reason, WorkerStatus, job_spec_adapter
from calibrl.stack.services import Postgres
from jobs import lifecycle, models
from jobs.db import session_scope
from jobs.lifecycle import machines
from jobs.repository import checkpoints, events, histograms, images, jobs, logs, metrics, samples, workers
from jobs.settings import get_settings
from tests.support import API_KEY, ROOT, life
from tests.support.databases import sql
from tests.support.fake_trainer import Behaviour
from tests.support.processes import processes_with
from tests.support.waiting import LIMIT_SECONDS, eventually
from tests.support.worker import wake
from worker.machine_heartbeat import MachineHeartbeat, Slots

pytestmark = pytest.mark.integration

QUICK = {
    "CALIBRL_TRAINER": "tests.support.fake_trainer",
    "CALIBRL_HEARTBEAT_SECONDS": "0.2",
    "CALIBRL_LEASE_SECONDS": "600",  # which no process without a CPU reaches; tests that need its end set it
    "CALIBRL_SWEEP_SECONDS": "0.3",
    "CALIBRL_STOP_GRACE_SECONDS": "120",
    "CALIBRL_WORKER_NAME": "tester",
}


@pytest.fixture(autouse=True)
def quick(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings with which things happen soon."""
    monkeypatch.chdir(ROOT)
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    life.machine("tester", cpu_slots=1)  # for what runs in the test's own process; no heartbeat thread renews it
    life.run("UPDATE workers SET heartbeat_at = now() + interval '1 hour'")


@pytest.fixture
def celery_worker(tmp_path: Path) -> Iterator[Callable[[], Process]]:
    """Starts worker processes, which don't outlive the test."""
    started: list[Process] = []

    def start() -> Process:
        command = [sys.executable, "-m", "celery", "-A", "worker.tasks", "worker", "--without-mingle"]
        started.append(children.start(command, log=tmp_path / "worker.log", env=dict(os.environ)))
        return started[-1]

    yield start
    for process in started:
        children.stop(process, 0)


def submit(behaviour: Behaviour = Behaviour.NORMAL, *, steps: int = 20, milliseconds: int = 10, **more: Any) -> UUID:
    spec = {
        "kind": "train",
        "name": "a test",
        "model": {"builtin": "tiny-vlm"},
        "data": {"builtin": "digits"},
        "algorithm": {"type": "grpo", "mini_batches": 1},
        "steps": steps,
        "prompts_per_step": milliseconds,
        "seed": int(behaviour),
        "checkpoints": {"every_steps": 5},
    }
    with session_scope() as session:
        return lifecycle.submit(session, job_spec_adapter.validate_python(spec | more), actor="user").id


def job(job_id: UUID) -> models.Job:
    with session_scope() as session:
        return jobs.get(session, job_id)


def event_types(job_id: UUID) -> list[str]:
    with session_scope() as session:
        return [event.type for event in events.page(session, job_id, after=0, limit=1000)]


def steps(job_id: UUID) -> list[int]:
    with session_scope() as session:
        return [row[0] for row in metrics.page(session, job_id, names=None, after_step=-1, limit=10_000)]


def log_text(job_id: UUID) -> str:
    with session_scope() as session:
        return logs.read(session, job_id, after=0, limit=10_000_000).decode()


def worker_statuses() -> list[str]:
    with session_scope() as session:
        return [worker.status for worker in machines.page(session, after="", limit=10)]


def running_at(job_id: UUID, step: int) -> models.Job:
    """The job once its run has come this far."""

    def far_enough() -> models.Job | None:
        found = job(job_id)
        assert not found.status.final, found.message
        return found if found.status is JobStatus.RUNNING and found.step >= step else None

    found = eventually(far_enough)
    assert found is not None
    return found


def ended(job_id: UUID) -> models.Job:
    eventually(lambda: job(job_id).status.final)
    return job(job_id)


def trainers(job_id: UUID) -> list[int]:
    return processes_with(f"runs/{job_id}")


def assert_whole(job_id: UUID, total: int) -> None:
    """The job succeeded, and every step, histogram and sample is there exactly once."""
    found = job(job_id)
    assert (found.status, found.reason, found.message) == (JobStatus.SUCCEEDED, None, None)
    assert (found.step, found.steps_total) == (total, total)
    assert steps(job_id) == list(range(1, total + 1))
    with session_scope() as session:
        for name in ("rareness", "expert/gap"):
            rows = histograms.page(session, job_id, name=name, after_step=-1, limit=10_000)
            assert [row.step for row in rows] == list(range(1, total + 1))
        sampled = Counter(row.step for row in samples.page(session, job_id, step=None, after=0, limit=10_000))
    assert sampled == {step: 2 for step in range(1, total + 1) if step in (1, total) or step % 10 == 0}


def test_a_job_succeeds_and_all_it_reports_arrives_once() -> None:
    job_id = submit(steps=20)
    wake()
    assert_whole(job_id, 20)
    found = job(job_id)
    assert found.result is not None and found.result["best_step"] in (5, 10, 15, 20)
    assert found.attempt == 1
    assert log_text(job_id) == "".join(f"step {step}\n" for step in range(1, 21))
    with session_scope() as session:
        kept = checkpoints.of_job(session, job_id)
        assert [row.step for row in kept] == [15, 20]
        assert all(Path(row.path).is_dir() for row in kept)
        summary = samples.page(session, job_id, step=10, after=0, limit=10)[0]
        group = samples.get(session, job_id, summary.id).group
        assert images.get(session, job_id, group["images"][0]).startswith(b"\x89PNG")
    assert event_types(job_id)[:3] == ["submitted", "claimed", "started"]
    assert trainers(job_id) == []


def test_one_wake_up_runs_all_that_is_queued_dependents_too() -> None:
    first = submit(steps=2)
    with session_scope() as session:
        spec = {"kind": "evaluate", "name": "e", "models": [{"from_job": first}], "data": [{"builtin": "digits"}]}
        second = lifecycle.submit(session, job_spec_adapter.validate_python(spec), actor="user").id
    assert job(second).status is JobStatus.WAITING
    wake()
    found = job(second)
    assert (found.status, found.step, found.steps_total) == (JobStatus.SUCCEEDED, 1, 1)
    assert found.result is not None
    assert found.result["results"][0]["model"].endswith("step-000002")


def test_the_trainer_gets_no_secrets_and_only_its_device(in_background: Callable[[], Future[None]]) -> None:
    job_id = submit(steps=1000, milliseconds=50)
    run = in_background()
    running_at(job_id, 1)
    pid = int(trainers(job_id)[0])
    environment = Path(f"/proc/{pid}/environ").read_text().split("\0")
    with session_scope() as session:
        lifecycle.cancel(session, job_id, actor="user")
    assert "CUDA_VISIBLE_DEVICES=" in environment
    assert not [line for line in environment if API_KEY in line or re.match("(DATABASE|REDIS)_URL|CALIBRL_", line)]
    run.result(LIMIT_SECONDS)


def test_cancel_kills_a_trainer_that_ignores_term_and_its_children(
    in_background: Callable[[], Future[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALIBRL_STOP_GRACE_SECONDS", "0.5")
    get_settings.cache_clear()
    job_id = submit(Behaviour.STUBBORN, steps=4)
    run = in_background()
    running_at(job_id, 2)
    eventually(lambda: len(trainers(job_id)) == 2)
    with session_scope() as session:
        assert lifecycle.cancel(session, job_id, actor="user").status is JobStatus.CANCELLING
    run.result(LIMIT_SECONDS)
    assert (job(job_id).status, job(job_id).reason) == (JobStatus.CANCELLED, Reason.USER)
    eventually(lambda: trainers(job_id) == [])
    assert steps(job_id) == [1, 2]


@pytest.mark.parametrize(
    ("behaviour", "reason", "words"),
    [
        (
            Behaviour.CRASH,
            Reason.CRASHED,
            ("Trainer exited with code 1\nLast log lines:", "RuntimeError: the fake trainer was asked to crash"),
        ),
        (Behaviour.ERROR, Reason.NON_FINITE, ("loss/total was NaN at step 5",)),
        (Behaviour.CAUGHT, Reason.CRASHED, ("KeyError: 'digits'", "step 2")),
        (Behaviour.KILLED, Reason.CRASHED, ("killed by SIGKILL", "step 2")),
    ],
)
def test_a_trainer_that_fails_leaves_its_reason(behaviour: Behaviour, reason: Reason, words: tuple[str, ...]) -> None:
    job_id = submit(behaviour, steps=4)
    wake()
    found = job(job_id)
    assert (found.status, found.reason) == (JobStatus.FAILED, reason)
    assert found.message is not None
    assert [word for word in words if word not in found.message] == []
    assert len(found.message.splitlines()) <= 21
    assert steps(job_id) == [1, 2]


def test_a_run_that_a_health_rule_ended_is_paused_and_says_why() -> None:
    """Given back to the queue it would go on from its checkpoint, which is what it was not to do."""
    job_id = submit(Behaviour.UNHEALTHY, steps=4)
    wake()
    found = job(job_id)
    assert (found.status, found.reason, found.attempt) == (JobStatus.PAUSED, Reason.HEALTH, 1)
    assert found.message == "all_truncated fired; a checkpoint was kept"
    assert found.result is not None
    with session_scope() as session:
        (alert,) = [event for event in events.page(session, job_id, after=0, limit=100) if event.type == "health"]
        assert [row.step for row in checkpoints.of_job(session, job_id)] == [2]
    assert alert.message == "all_truncated fired at step 2: all were cut. Raise the limit."
    assert steps(job_id) == [1, 2]


def test_lines_that_are_no_events_are_skipped_with_a_warning() -> None:
    job_id = submit(Behaviour.BAD_LINES, steps=4)
    wake()
    assert job(job_id).status is JobStatus.SUCCEEDED
    with session_scope() as session:
        warnings = [e.message for e in events.page(session, job_id, after=0, limit=100) if e.type == "warning"]
        values = metrics.page(session, job_id, names=None, after_step=1, limit=1)[0][2]
    assert len(warnings) == 1
    assert str(warnings[0]).startswith("lines skipped in events.jsonl: 6; the first: ")
    assert (values["reward/mean"], values["loss/total"]) == ("NaN", "Infinity")
    assert values["exploration/entropy"] > 0  # the step's other values stay
    assert steps(job_id) == [1, 2, 3, 4]


def test_a_trainers_remaining_children_are_killed() -> None:
    job_id = submit(Behaviour.STRAGGLER, steps=4)
    wake()
    assert job(job_id).status is JobStatus.SUCCEEDED
    eventually(lambda: trainers(job_id) == [])


def test_a_job_that_the_worker_can_not_run_fails_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a folder should be")
    job_id = submit()
    wake()
    assert (job(job_id).status, job(job_id).reason) == (JobStatus.FAILED, Reason.CRASHED)
    assert "tester could not run it: NotADirectoryError" in str(job(job_id).message)


def test_a_lost_lease_kills_the_trainer_and_writes_nothing_more(in_background: Callable[[], Future[None]]) -> None:
    job_id = submit(Behaviour.STUBBORN, steps=4)
    run = in_background()
    running_at(job_id, 2)
    life.machine("another")
    with session_scope() as session:
        workers.set_status(session, "tester", WorkerStatus.DRAINING)  # first: it would take the job up again itself
    with session_scope() as session:
        jobs.renew(jobs.lock(session, job_id), -1)
        session.flush()  # in one transaction: the supervisor would renew it
        assert lifecycle.sweep(session).requeued == 1
    with session_scope() as session:
        taken = lifecycle.claim(session, worker="another")
    run.result(LIMIT_SECONDS)
    assert trainers(job_id) == []
    found = job(job_id)
    assert (found.status, found.worker, found.attempt) == (JobStatus.RUNNING, "another", 2)
    assert taken is not None and found.lease_token == taken.token


def listed() -> tuple[WorkerStatus, list[UUID]]:
    """Return the worker's status and its jobs as its heartbeats report them."""
    with session_scope() as session:
        (found,) = machines.page(session, after="", limit=10)
    assert (found.name, found.cpu_slots, found.gpus) == ("tester", 1, [])
    assert {"python", "torch", "calibrl"} <= set(found.versions) or not found.versions
    return found.status, found.jobs


def test_a_worker_on_stop_signal_gives_its_job_back_and_another_goes_on(
    celery_worker: Callable[[], Process],
) -> None:
    job_id = submit(steps=60, milliseconds=50)
    first = celery_worker()
    running_at(job_id, 7)
    eventually(lambda: listed() == (WorkerStatus.ONLINE, [job_id]))
    assert children.stop(first, LIMIT_SECONDS) == 0
    assert listed() == (WorkerStatus.OFFLINE, [])
    found = job(job_id)
    assert (found.status, found.reason) == (JobStatus.QUEUED, Reason.WORKER_STOPPED)
    done = found.step
    assert 7 <= done < 60
    celery_worker()
    assert ended(job_id).attempt == 2
    assert_whole(job_id, 60)
    # The checkpoint was written at the stop signal, so no step was repeated.
    assert Counter(log_text(job_id).splitlines()) == {f"step {step}": 1 for step in range(1, 61)}


def test_a_killed_pool_process_takes_its_trainer_along_and_the_job_goes_on(
    celery_worker: Callable[[], Process],
) -> None:
    job_id = submit(steps=30, milliseconds=50, checkpoints={"every_steps": 1000})
    worker = celery_worker()
    running_at(job_id, 7)
    trainer = trainers(job_id)[0]
    parent = int(Path(f"/proc/{trainer}/stat").read_text().split()[3])
    assert parent != worker.pid
    os.kill(parent, signal.SIGKILL)
    eventually(lambda: trainer not in trainers(job_id))
    life.expire(job_id)
    assert ended(job_id).attempt == 2
    assert_whole(job_id, 30)
    with session_scope() as session:
        reasons = [event.reason for event in events.page(session, job_id, after=0, limit=100) if event.reason]
    assert reasons == [Reason.LOST_WORKER]
    assert not children.ended(worker)
    # The first trainer died before it was done: without a checkpoint, the second one began at step 0.
    count = Counter(log_text(job_id).splitlines())
    assert (count["step 1"], count["step 30"]) == (2, 1)


def test_a_killed_worker_takes_all_its_processes_along(celery_worker: Callable[[], Process], database: str) -> None:
    job_id = submit(steps=1000, milliseconds=50)
    worker = celery_worker()
    running_at(job_id, 1)
    assert len(processes_with(database)) == 2  # the worker and its pool process; the trainer has no connection
    worker.kill()
    eventually(lambda: processes_with(database) == trainers(job_id) == [])


@pytest.mark.parametrize("stop_signal", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL])
def test_a_database_that_restarts_costs_nothing(
    celery_worker: Callable[[], Process],
    postgres: Postgres,
    stop_signal: signal.Signals,
) -> None:
    job_id = submit(steps=80, milliseconds=40)
    celery_worker()
    running_at(job_id, 10)
    assert postgres.process is not None
    postgres.process.send_signal(stop_signal)
    postgres.stop()
    run_dir = get_settings().run_dir(job_id, 1)
    before = (run_dir / "events.jsonl").stat().st_size
    eventually(lambda: (run_dir / "events.jsonl").stat().st_size > before + 10_000)  # training goes on meanwhile
    postgres.start()
    postgres.wait_ready()
    assert ended(job_id).attempt == 1
    assert_whole(job_id, 80)


def test_a_job_is_paused_at_a_checkpoint_and_goes_on_from_it(in_background: Callable[[], Future[None]]) -> None:
    job_id = submit(steps=60, milliseconds=50, checkpoints={"every_steps": 1000})
    run = in_background()
    running_at(job_id, 7)
    with session_scope() as session:
        assert lifecycle.pause(session, job_id, actor="user").status is JobStatus.PAUSING
    run.result(LIMIT_SECONDS)
    assert job(job_id).status is JobStatus.PAUSED
    assert trainers(job_id) == []
    other = submit(steps=2)  # the slot is free
    wake()
    assert job(other).status is JobStatus.SUCCEEDED
    with session_scope() as session:
        lifecycle.resume(session, job_id, actor="user")
    wake()
    assert job(job_id).attempt == 2
    assert_whole(job_id, 60)
    assert Counter(log_text(job_id).splitlines()) == {f"step {step}": 1 for step in range(1, 61)}
    # Nothing of the first attempt's checkpoints is left, and what the second one keeps is on disk.
    assert not list(get_settings().run_dir(job_id, 1).glob("checkpoints/*"))
    with session_scope() as session:
        kept = [Path(row.path) for row in checkpoints.of_job(session, job_id)]
    assert kept and all(path.is_dir() and path.parent.parent.name == "attempt-2" for path in kept)


def test_the_heartbeat_outlives_a_database_that_is_not_migrated_yet(database: str) -> None:
    sql(database, "ALTER TABLE workers RENAME TO hidden")
    heartbeat = MachineHeartbeat(get_settings(), Slots(1))
    with structlog.testing.capture_logs() as logged:
        heartbeat.start()
        eventually(lambda: logged or not heartbeat.is_alive())
        sql(database, "ALTER TABLE hidden RENAME TO workers")
        try:
            eventually(lambda: worker_statuses() == ["online"])
        finally:
            heartbeat.end()
    assert [entry["event"] for entry in logged] == ["heartbeat failed"]
    assert worker_statuses() == ["offline"]
