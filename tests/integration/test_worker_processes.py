"""Worker processes that stop, are killed or lose the database: their jobs go on elsewhere, and no process is left."""

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
import structlog
import structlog.testing

from calibrl.processes import children
from calibrl.processes.children import Process
from calibrl.schemas import JobStatus, Reason, WorkerStatus
from calibrl.stack.services import Postgres
from jobs.db import session_scope
from jobs.lifecycle import machines
from jobs.repository import events
from jobs.settings import get_settings
from tests.support import job_steps
from tests.support.databases import sql
from tests.support.processes import processes_with
from tests.support.waiting import LIMIT_SECONDS, eventually
from tests.support.worker_jobs import (
    ENDLESS,
    assert_whole,
    ended,
    held_at,
    job,
    log_text,
    running_at,
    submit,
    trainers,
)
from worker.machine_heartbeat import MachineHeartbeat, Slots

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("quick_worker")]


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


def worker_statuses() -> list[str]:
    with session_scope() as session:
        return [worker.status for worker in machines.page(session, after="", limit=10)]


def listed() -> tuple[WorkerStatus, list[UUID]]:
    """Return the worker's status and its jobs as its heartbeats report them."""
    with session_scope() as session:
        (found,) = machines.page(session, after="", limit=10)
    assert (found.name, found.cpu_slots, found.gpus) == ("tester", 1, [])
    assert {"python", "torch", "calibrl"} <= set(found.versions) or not found.versions
    return found.status, found.jobs


def test_a_stopping_worker_requeues_its_job_and_another_resumes_it(
    celery_worker: Callable[[], Process],
) -> None:
    job_id = submit(steps=60, milliseconds=50)
    with held_at(job_id, 30):
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


def test_a_killed_slot_process_ends_its_trainer_and_the_job_resumes(
    celery_worker: Callable[[], Process],
) -> None:
    job_id = submit(steps=30, milliseconds=50, checkpoints={"every_steps": 1000})
    with held_at(job_id, 20):
        worker = celery_worker()
        running_at(job_id, 7)
        trainer = trainers(job_id)[0]
        parent = int(Path(f"/proc/{trainer}/stat").read_text().split()[3])
        assert parent != worker.pid
        os.kill(parent, signal.SIGKILL)
        eventually(lambda: trainer not in trainers(job_id))
    job_steps.expire(job_id)
    assert ended(job_id).attempt == 2
    assert_whole(job_id, 30)
    with session_scope() as session:
        reasons = [event.reason for event in events.page(session, job_id, after=0, limit=100) if event.reason]
    assert reasons == [Reason.LOST_WORKER]
    assert not children.ended(worker)
    # The first trainer died before it was done: without a checkpoint, the second one began at step 0.
    count = Counter(log_text(job_id).splitlines())
    assert (count["step 1"], count["step 30"]) == (2, 1)


def test_a_killed_worker_ends_all_its_processes(celery_worker: Callable[[], Process], database: str) -> None:
    job_id = submit(steps=ENDLESS, milliseconds=50)
    worker = celery_worker()
    running_at(job_id, 1)
    assert len(processes_with(database)) == 2  # the worker and its pool process; the trainer has no connection
    worker.kill()
    eventually(lambda: processes_with(database) == trainers(job_id) == [])


@pytest.mark.slow
@pytest.mark.parametrize("stop_signal", [signal.SIGINT, signal.SIGKILL])
def test_a_restart_of_the_database_loses_nothing(
    celery_worker: Callable[[], Process],
    postgres: Postgres,
    stop_signal: signal.Signals,
) -> None:
    job_id = submit(steps=80, milliseconds=40)
    with held_at(job_id, 40):
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
