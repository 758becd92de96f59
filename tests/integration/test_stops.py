"""Stops and silences on a real database: what is lost is counted, and nothing is taken that can go on."""

import threading
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from calibrl.schemas import JobStatus, QueueEntry, Reason, WaitReason
from jobs import lifecycle
from jobs.db import session_scope
from jobs.lifecycle import Claim, LeaseLost, Order, Outcome
from jobs.models import Job
from jobs.repository import attempts as rows
from jobs.repository import gauges, jobs
from jobs.settings import get_settings
from tests.support.job_steps import (
    cancel,
    checkpoint,
    claim,
    expire,
    finish,
    heartbeat,
    history,
    machine,
    nothing_to_claim,
    run,
    status,
    submit,
    sweep,
)
from tests.support.waiting import LIMIT_SECONDS, eventually
from worker import claim_lease
from worker.claim_lease import ClaimLease
from worker.shipper import Shipper

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("database")]
S = JobStatus


def advance(job_id: UUID, step: int) -> None:
    with session_scope() as session:
        jobs.lock(session, job_id)
        jobs.set_progress(session, job_id, step, 100)
        job = jobs.get(session, job_id)
        jobs.set_shipped(session, job_id, job.attempt, 1, 0)


def attempts(job_id: UUID) -> list[tuple[int, Reason | None, int]]:
    with session_scope() as session:
        return [(row.number, row.reason, row.lost_steps) for row in jobs.attempts(session, job_id)]


def test_many_leases_that_expire_at_once_get_one_more_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIBRL_LEASE_SECONDS", "3600")
    monkeypatch.setattr(jobs, "RETRY_INTERVAL", timedelta(days=-1))  # as if the server were up for a day
    get_settings.cache_clear()
    ids = [submit() for _ in range(4)]
    for _ in ids:
        claim()
    lasting = "UPDATE jobs SET lease_expires_at = now() + interval '1 day'"
    run(lasting)
    for id in ids[:2]:
        expire(id)
    assert sweep().requeued == 2  # two can be lost workers
    assert claim() and claim()
    run(lasting)
    for id in ids[:3]:
        expire(id)
    assert sweep().requeued == 0
    run("UPDATE jobs SET lease_expires_at = now() - interval '2 hours'")
    assert sweep().requeued == 4


def test_an_attempt_takes_back_the_job_that_no_worker_has_claimed() -> None:
    machine("w", gpus=2)
    id = submit(resources={"gpus": 2})
    claimed = claim()
    expire(id)
    assert sweep().requeued == 1
    assert heartbeat(claimed) is Order.CONTINUE
    assert (status(id), attempts(id)) == (S.RUNNING, [(1, None, 0)])
    assert nothing_to_claim()
    with session_scope() as session:
        assert lifecycle.fence(session, claimed).attempt == 1
    assert [event.type for event in history(id)][-2:] == ["queued", "taken_back"]
    finish(claimed, S.SUCCEEDED)
    assert status(id) is S.SUCCEEDED


def test_a_job_whose_gpus_have_another_job_is_not_taken_back() -> None:
    machine("w", gpus=1)
    id = submit(resources={"gpus": 1})
    claimed = claim()
    expire(id)
    sweep()
    machine("w", gpus=1)  # its memory is free
    other = submit(resources={"gpus": 1}, priority="high")
    assert claim().job_id == other
    assert heartbeat(claimed) is Order.ABANDON
    assert status(id) is S.QUEUED


def test_a_job_that_a_user_cancelled_meanwhile_is_not_taken_back() -> None:
    id = submit()
    claimed = claim()
    expire(id)
    sweep()
    cancel(id)
    assert heartbeat(claimed) is Order.ABANDON
    with pytest.raises(LeaseLost):
        finish(claimed, S.SUCCEEDED)


def test_a_saved_checkpoint_forgives_the_workers_lost_before() -> None:
    id = submit(limits={"max_attempts": 2})
    for number in (1, 2, 3):
        assert claim().attempt == number
        with session_scope() as session:
            rows.set_saved(session, id, number)
        expire(id)
        assert sweep().requeued == 1
    claim()
    expire(id)
    assert sweep().failed == 1  # the third was lost after its checkpoint, and the fourth saved none


@pytest.mark.parametrize(("end", "saved", "lost"), [(S.QUEUED, 5, 3), (S.PAUSED, 5, 3), (S.PAUSED, 8, 0)])
def test_a_stop_without_a_checkpoint_says_what_is_lost(end: JobStatus, saved: int, lost: int) -> None:
    id = submit()
    claimed = claim()
    checkpoint(id, saved)
    advance(id, 8)
    finish(claimed, end, reason=Reason.USER)
    assert attempts(id) == [(1, Reason.USER, lost)]
    message = "stopped without a checkpoint: 3 steps lost"
    assert [event.message for event in history(id) if event.type == "steps_lost"] == [message] * bool(lost)
    with session_scope() as session:
        assert jobs.get(session, id).message == (message if lost else None)
        assert gauges.lost_steps(session) == lost


def test_the_steps_of_a_lost_worker_are_counted() -> None:
    id = submit()
    claim()
    advance(id, 1)
    expire(id)
    sweep()
    assert attempts(id) == [(1, Reason.LOST_WORKER, 1)]
    assert [event.message for event in history(id)][-2] == "stopped without a checkpoint: 1 step lost"


def entry(job_id: UUID) -> QueueEntry:
    with session_scope() as session:
        return next(one for one in lifecycle.queue_entries(session) if one.job_id == job_id)


def test_a_fault_that_can_pass_delays_the_next_start(monkeypatch: pytest.MonkeyPatch) -> None:
    id = submit()
    seconds, delay = list[float](), jobs.delay

    def noted(job: Job, wait: float) -> None:
        seconds.append(wait)
        delay(job, 120 * wait)  # an hour or more, so that the test can be slow

    monkeypatch.setattr(jobs, "delay", noted)
    for delays in range(3):
        finish(claim(), S.QUEUED, reason=Reason.STORAGE_AWAY, message="the storage is away")
        assert (status(id), nothing_to_claim(), entry(id).reason) == (S.QUEUED, True, WaitReason.LATER)
        with session_scope() as session:
            job = jobs.get(session, id)
            assert job.delays == delays + 1
        run("UPDATE jobs SET not_before = now()")
    assert seconds == [30, 60, 120]
    assert entry(id).reason is None
    with session_scope() as session:
        lifecycle.start(session, claim())
        assert jobs.get(session, id).delays == 0


def test_a_fault_that_lasts_fails_the_job() -> None:
    id = submit()
    run("UPDATE jobs SET delays = 20")
    finish(claim(), S.QUEUED, reason=Reason.STORAGE_AWAY, message="the storage is away")
    assert status(id) is S.FAILED
    assert history(id)[-1].reason is Reason.STORAGE_AWAY


def test_a_lease_is_renewed_while_its_run_does_something_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIBRL_HEARTBEAT_SECONDS", "0.01")
    get_settings.cache_clear()
    submit()
    claimed, beats = claim(), threading.Semaphore(0)

    def renew(session: Session, claim: Claim) -> Order:
        beats.release()
        return lifecycle.heartbeat(session, claim)

    with ClaimLease(claimed, get_settings(), renew) as lease:
        for _ in range(4):
            assert beats.acquire(timeout=LIMIT_SECONDS)
        before = lease.order
        cancel(claimed.job_id)
        assert eventually(lambda: lease.order is Order.CANCEL)
    assert before is Order.CONTINUE


def test_a_run_that_cannot_renew_its_lease_for_long_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(session: Session, claim: Claim) -> Order:
        raise OperationalError("SELECT 1", {}, Exception("away"))

    submit()
    lease = ClaimLease(claim(), get_settings(), away)
    assert not lease.beat()
    before = lease.order
    monkeypatch.setattr(claim_lease, "ALONE_LEASES", -1)
    assert not lease.beat()
    assert (before, lease.order) == (Order.CONTINUE, Order.STOP)


def test_a_trainer_that_begins_before_all_checkpoints_deletes_nothing(tmp_path: Path) -> None:
    id = submit()
    finish(claim(), S.QUEUED)
    checkpoint(id, 4)
    advance(id, 5)
    claimed = claim()
    for step in (0, 4):
        (tmp_path / "events.jsonl").write_text(f'{{"type": "start", "ts": 1.0, "step": {step}, "steps_total": 9}}\n')
        shipper = Shipper(claimed, tmp_path, "w")
        if step == 0:
            with pytest.raises(Exception, match=r"began at step 0: it could not use the checkpoints of steps 4\."):
                shipper.ship()
        else:
            shipper.ship()
    with session_scope() as session:
        assert jobs.get(session, id).step == 4


def test_an_outcome_keeps_its_own_message_if_nothing_is_lost() -> None:
    id = submit()
    claimed = claim()
    with session_scope() as session:
        lifecycle.finish(session, claimed, Outcome(S.PAUSED, message="a sentence"))
    with session_scope() as session:
        assert jobs.get(session, id).message == "a sentence"
