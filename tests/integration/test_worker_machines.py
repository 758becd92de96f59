"""The workers of a job on several machines, each in a thread, with fake trainers and without torch's launcher."""

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest

from calibrl.schemas import JobStatus, Reason
from jobs import lifecycle
from jobs.db import session_scope
from jobs.lifecycle import Claim
from jobs.models import PartState
from jobs.repository import job_machines, jobs
from jobs.settings import Settings, get_settings
from tests.support import job_steps
from tests.support.fake_trainer import Behaviour
from tests.support.waiting import LIMIT_SECONDS, eventually
from tests.support.worker import wake
from tests.support.worker_jobs import ENDLESS, assert_whole, held_at, job, running_at, submit, trainers
from worker import multi_gpu
from worker.part import JobPart
from worker.standby import Standby
from worker.supervisor import Supervisor
from worker.trainer_process import child_environment

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("quick_worker")]
Submit = Callable[..., Future[None]]


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[multi_gpu.MachineGroup]:
    """The places of the machines whose trainers were started, each one process without a launcher."""
    found: list[multi_gpu.MachineGroup] = []

    def command(module: str, arguments: Sequence[str], processes: int, group: multi_gpu.MachineGroup) -> list[str]:
        found.append(group)
        return ["env", f"RANK={group.rank}", sys.executable, "-m", module, *arguments]

    monkeypatch.setattr("worker.multi_gpu.command", command)
    return found


@pytest.fixture
def start(groups: list[multi_gpu.MachineGroup], monkeypatch: pytest.MonkeyPatch) -> Iterator[Submit]:
    """Yield a function that starts the run of a claim in a thread; a and b are machines with a CPU slot each."""
    monkeypatch.setattr("worker.stopping.END_SECONDS", 0.1)
    monkeypatch.setattr("worker.part.END_SECONDS", 0.1)
    for name in "ab":
        job_steps.machine(name, cpu_slots=1)
    job_steps.run("UPDATE workers SET heartbeat_at = now() + interval '1 hour'")
    job_steps.run("UPDATE workers SET status = 'draining' WHERE name = 'tester'")
    with ThreadPoolExecutor(2) as pool:
        yield lambda claim, **changes: pool.submit(runner(claim, **changes).run)
        job_steps.run("UPDATE jobs SET lease_token = NULL")  # what still runs after a failed test ends
        job_steps.run("DELETE FROM job_machines")


def runner(claim: Claim, **changes: object) -> Supervisor | JobPart:
    settings: Settings = get_settings().model_copy(update={"worker_name": "ab"[claim.rank], **changes})
    return (
        JobPart(claim, settings)
        if claim.rank
        else Supervisor(claim, settings, Standby(settings, child_environment(())))
    )


def both(start: Submit) -> tuple[Future[None], Future[None]]:
    return start(job_steps.claimed("a")), start(job_steps.taken("b"))


def ended(*runs: Future[None]) -> None:
    for one in runs:
        one.result(LIMIT_SECONDS)


def led(start: Submit) -> tuple[Claim, Future[None]]:
    """A run on a; b only says that it is ready. Return the part of b and the run."""
    run = start(job_steps.claimed("a"))
    part = job_steps.taken("b")
    with session_scope() as session:
        lifecycle.part_ready(session, part)
    return part, run


def end_of(job_id: UUID) -> tuple[JobStatus, Reason | None]:
    found = job(job_id)
    return found.status, found.reason


def test_two_machines_run_one_training(start: Submit, groups: list[multi_gpu.MachineGroup]) -> None:
    job_id = submit(steps=6, resources={"machines": 2})
    ended(*both(start))
    assert_whole(job_id, 6)
    first, second = sorted(groups, key=lambda group: group.rank)
    assert (first.rank, second.rank, first.machines, second.machines) == (0, 1, 2, 2)
    assert first.endpoint == second.endpoint and first.endpoint.startswith("127.0.0.1:")
    folder = get_settings().run_dir(job_id, 1)
    assert (folder / "machine-1/config.json").read_text() == (folder / "config.json").read_text()
    assert (folder / "machine-1/log.txt").exists()
    assert trainers(job_id) == []


def test_a_pause_reaches_both_machines_and_the_job_resumes(start: Submit) -> None:
    job_id = submit(steps=6, resources={"machines": 2}, checkpoints={"every_steps": 1000})
    with held_at(job_id, 3):
        runs = both(start)
        running_at(job_id, 3)
        eventually(lambda: len(trainers(job_id)) == 2)
        job_steps.pause(job_id)
        ended(*runs)
    assert end_of(job_id) == (JobStatus.PAUSED, Reason.USER)
    assert trainers(job_id) == []
    job_steps.resume(job_id)
    ended(*both(start))
    assert_whole(job_id, 6)


def test_a_trainer_that_fails_on_another_machine_fails_the_job(start: Submit) -> None:
    job_id = submit(Behaviour.PEER_CRASH, steps=ENDLESS, milliseconds=50, resources={"machines": 2})
    ended(*both(start))
    assert end_of(job_id) == (JobStatus.FAILED, Reason.CRASHED)
    message = str(job(job_id).message)
    assert message.startswith("On b: Trainer exited with code 1\nLast log lines:")
    assert "the other process was asked to crash" in message
    assert trainers(job_id) == []


def test_a_lost_lease_ends_the_trainers_of_both_machines(start: Submit) -> None:
    job_id = submit(steps=ENDLESS, milliseconds=50, resources={"machines": 2})
    runs = both(start)
    running_at(job_id, 1)
    eventually(lambda: len(trainers(job_id)) == 2)

    def requeued() -> bool:
        with session_scope() as session:
            jobs.renew(jobs.lock(session, job_id), -1)
            session.flush()  # in one transaction: the supervisor would renew it
            return lifecycle.sweep(session).requeued == 1

    eventually(requeued)  # a sweep leaves a job whose part holds its row
    ended(*runs)
    assert trainers(job_id) == []
    assert end_of(job_id) == (JobStatus.QUEUED, Reason.LOST_WORKER)


def test_a_lost_machine_requeues_the_job_and_no_step_is_missing(start: Submit) -> None:
    job_id = submit(steps=12, milliseconds=2, resources={"machines": 2})
    with held_at(job_id, 7):
        _, run = led(start)
        running_at(job_id, 7)
        job_steps.expire_parts()
        eventually(lambda: job_steps.sweep().requeued == 1)  # a sweep leaves a job whose heartbeat holds its row
        ended(run)
    assert trainers(job_id) == []
    ended(*both(start))
    assert job(job_id).attempt == 2
    assert_whole(job_id, 12)


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_crash_is_a_failure_only_if_no_machine_was_lost(is_lost: bool, start: Submit) -> None:
    """The loss of a machine makes the trainers of the others crash."""
    job_id = submit(Behaviour.CRASH, steps=4, resources={"machines": 2})
    part, run = led(start)

    def waits() -> bool:
        with session_scope() as session:
            return job_machines.of_job(session, job_id)[0].state is PartState.ENDED

    eventually(waits)
    assert job(job_id).status is JobStatus.RUNNING
    if is_lost:
        job_steps.expire_parts()
        eventually(lambda: job_steps.sweep().requeued == 1)  # a sweep leaves a job whose heartbeat holds its row
    else:
        with session_scope() as session:
            lifecycle.end_part(session, part, None)
    ended(run)
    expected = (JobStatus.QUEUED, Reason.LOST_WORKER) if is_lost else (JobStatus.FAILED, Reason.CRASHED)
    assert end_of(job_id) == expected


def test_another_data_folder_is_named(start: Submit, tmp_path: Path) -> None:
    job_id = submit(steps=ENDLESS, milliseconds=50, resources={"machines": 2})
    main, part = job_steps.claimed("a"), job_steps.taken("b")
    ended(start(main), start(part, data_dir=tmp_path / "other"))
    assert end_of(job_id) == (JobStatus.FAILED, Reason.CRASHED)
    assert "share the data folder between the machines" in str(job(job_id).message)


def test_an_address_that_others_cannot_reach_is_named(start: Submit) -> None:
    job_id = submit(resources={"machines": 2})
    job_steps.run("UPDATE workers SET host = 'elsewhere' WHERE name = 'b'")
    _, run = led(start)
    ended(run)
    assert "cannot reach a at 127.0.0.1: set CALIBRL_WORKER_ADDRESS" in str(job(job_id).message)


def test_a_wake_up_takes_the_part_that_waits(start: Submit) -> None:
    job_steps.run("UPDATE workers SET status = 'draining' WHERE name = 'b'")
    job_steps.run("UPDATE workers SET status = 'online' WHERE name = 'tester'")
    job_id = submit(resources={"machines": 2})
    main = job_steps.claimed("a")

    def ready() -> bool:
        with session_scope() as session:
            return lifecycle.all_ready(session, main)

    with ThreadPoolExecutor(1) as pool:
        woken = pool.submit(wake)
        eventually(ready)
        job_steps.finish(main, JobStatus.SUCCEEDED)
        ended(woken)
    assert end_of(job_id) == (JobStatus.SUCCEEDED, None)
