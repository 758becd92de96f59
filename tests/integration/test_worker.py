"""The worker's run of a job against real PostgreSQL, Valkey and trainer processes; the trainer is the fake one."""

import re
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from calibrl.schemas import JobStatus, Reason, WorkerStatus, job_spec_adapter
from jobs import lifecycle
from jobs.db import session_scope
from jobs.repository import checkpoints, events, images, jobs, metrics, samples, workers
from jobs.settings import get_settings
from tests.support import API_KEY, job_steps
from tests.support.fake_trainer import Behaviour
from tests.support.waiting import LIMIT_SECONDS, eventually
from tests.support.worker import wake
from tests.support.worker_jobs import (
    ENDLESS,
    assert_whole,
    event_types,
    held_at,
    job,
    log_text,
    running_at,
    steps,
    submit,
    trainers,
)
from worker import attempt_folder
from worker.supervisor import Supervisor

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("quick_worker")]


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
    job_id = submit(steps=ENDLESS, milliseconds=50)
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


def test_invalid_event_lines_are_skipped_with_a_warning() -> None:
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
    job_steps.machine("another")
    with session_scope() as session:
        workers.set_status(session, "tester", WorkerStatus.DRAINING)  # first: it would take the job up again itself
    with session_scope() as session:
        jobs.renew(jobs.lock(session, job_id), -1)
        session.flush()  # in one transaction: the supervisor would renew it, or take it back
        assert lifecycle.sweep(session).requeued == 1
        taken = lifecycle.claim(session, worker="another")
    run.result(LIMIT_SECONDS)
    assert trainers(job_id) == []
    found = job(job_id)
    assert (found.status, found.worker, found.attempt) == (JobStatus.RUNNING, "another", 2)
    assert taken is not None and found.lease_token == taken.token


def test_a_job_is_paused_at_a_checkpoint_and_resumes_from_it(in_background: Callable[[], Future[None]]) -> None:
    job_id = submit(steps=60, milliseconds=50, checkpoints={"every_steps": 1000})
    with held_at(job_id, 30):
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


def test_links_to_checkpoints_stay_if_the_lease_is_lost_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor is suspended until its trainer has ended and another machine has claimed the job."""
    claims: list[lifecycle.Claim | None] = []
    settle = Supervisor._settle

    def suspended(supervisor: Supervisor, status: int, starved: bool) -> None:
        supervisor._shipper.ship()
        job_steps.the_only("another")
        with session_scope() as session:  # in one transaction: the heartbeat would take the job back in between
            jobs.lock(session, job_id).lease_expires_at = datetime.now(UTC) - timedelta(seconds=1)
            session.flush()
            lifecycle.sweep(session)
            claims.append(lifecycle.claim(session, worker="another"))
        settle(supervisor, status, starved)

    monkeypatch.setattr(Supervisor, "_settle", suspended)
    job_id = submit(steps=10)
    wake()
    (claim,) = claims
    assert claim is not None and (job(job_id).attempt, claim.attempt) == (2, 2)
    recorded = [known.path for known in claim.checkpoints]
    assert recorded
    for path in recorded:  # the trainer went on, and removed its own
        shutil.rmtree(path)
    attempt_folder.begin(get_settings().run_dir(job_id, 2), claim.checkpoints)
