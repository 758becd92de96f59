"""The sweep: what mends what dead processes left. Safe to run anywhere, any number of times."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from calibrl.schemas import JobStatus, Reason
from jobs import models
from jobs.lifecycle.dispatch import Situation, wake_for_free_slots
from jobs.lifecycle.status import SCHEDULER, change, decide
from jobs.repository import events, idempotency, jobs, webhooks
from jobs.settings import get_settings

SWEPT_AT_ONCE = 100


@dataclass(frozen=True)
class Swept:
    """What a sweep did, in jobs; `woken` in wake-ups."""

    requeued: int = 0
    paused: int = 0
    failed: int = 0
    cancelled: int = 0
    released: int = 0
    preempted: int = 0
    woken: int = 0


def sweep(session: Session, *, recover: bool = True) -> Swept:
    """Mend expired leases, forgotten dependents and missed wake-ups, and have jobs give way where that is wanted.

    Not `recover`: no job is taken from its worker. For whoever has just been cut off from the database: so may all
    workers have been.
    """
    if not jobs.try_sweep_lock(session):
        return Swept()
    expired = jobs.lock_expired(session, SWEPT_AT_ONCE, get_settings().lease_seconds) if recover else []
    ended = [_recover(session, job) for job in expired]
    idempotency.forget_old(session)
    webhooks.forget_old(session)
    decided = jobs.lock_decided(session, SWEPT_AT_ONCE)
    for job in decided:
        decide(session, job)
    return Swept(
        requeued=ended.count(JobStatus.QUEUED),
        paused=ended.count(JobStatus.PAUSED),
        failed=ended.count(JobStatus.FAILED),
        cancelled=ended.count(JobStatus.CANCELLED),
        released=len(decided),
        preempted=_preempt(session) if get_settings().preemption else 0,
        woken=wake_for_free_slots(session),
    )


def _recover(session: Session, job: models.Job) -> JobStatus:
    """Take a job from a worker that has not renewed its lease; the status it got."""
    message = f"worker {job.worker} has not been heard of in time (attempt {job.attempt})"
    if job.status is JobStatus.CANCELLING:
        to, reason = JobStatus.CANCELLED, Reason.USER
    elif job.status is JobStatus.PAUSING:
        to, reason = JobStatus.PAUSED, Reason.LOST_WORKER
    else:
        most = job.spec["limits"]["max_attempts"] or get_settings().max_attempts
        again = jobs.lost_attempts(session, job) + 1 < most
        to, reason = JobStatus.QUEUED if again else JobStatus.FAILED, Reason.LOST_WORKER
    change(session, job, to, actor=SCHEDULER, reason=reason, message=message)
    return to


def _preempt(session: Session) -> int:
    """Have running jobs give way to a job of a higher class that waits; how many were told to."""
    told = 0
    for job in jobs.lock_some(session, Situation(session).giving_way()):
        if job.status is JobStatus.RUNNING and not job.preempted:
            job.preempted = True
            events.add(session, job.id, "preempted", actor=SCHEDULER, message="gives way to a job of a higher class")
            told += 1
    session.flush()
    return told
