"""The sweep: repairs what dead processes left behind. Can run anywhere, any number of times."""

import time
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session

from calibrl.schemas import JobStatus, Reason
from jobs import models
from jobs.alerts import progress_rules
from jobs.lifecycle.dispatch import SchedulerInput, wake_for_free_slots
from jobs.lifecycle.lost_steps import GOES_ON, note_lost_steps
from jobs.lifecycle.status import SCHEDULER, change, release_or_fail_dependent
from jobs.repository import audit, events, idempotency, job_machines, jobs, webhooks
from jobs.settings import get_settings

MAX_SWEPT_JOBS = 100
# Expired leases, and their share of all leases, above which the network is suspected.
MANY_AT_ONCE, MANY_SHARE = 2, 0.25

log = structlog.get_logger()


@dataclass(frozen=True)
class Swept:
    """Result of a sweep, in jobs; `woken` in wake-ups."""

    requeued: int = 0
    paused: int = 0
    failed: int = 0
    cancelled: int = 0
    released: int = 0
    preempted: int = 0
    woken: int = 0


class Recovery:
    """Decides if a sweeping process can take jobs from workers whose leases have expired.

    A process that could not reach the database, or did not run for a while (no free CPU, a suspended machine), assumes
    that all workers had the same problem. It waits for the length of one lease, so that they can renew theirs.
    """

    def __init__(self) -> None:
        self._allowed_from = 0.0
        self._last_asked: float | None = None

    def allowed(self) -> bool:
        """Return if this sweep can recover jobs. Call it once per sweep."""
        settings = get_settings()
        now, last = _clock(), self._last_asked
        if last is not None and now - last > settings.sweep_seconds + settings.lease_seconds / 2:
            self.delay()
        self._last_asked = now
        return now >= self._allowed_from

    def delay(self) -> None:
        """Wait one lease before the next recovery: the database could not be reached."""
        self._allowed_from = _clock() + get_settings().lease_seconds


def _clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # unlike the monotonic clock, it counts a machine's suspension


def sweep(session: Session, *, recover: bool = True) -> Swept:
    """Recover expired leases, forgotten dependents and missed wake-ups, and preempt jobs if preemption is on.

    Args:
        recover: take jobs from silent workers. False for a process that has just lost its own connection to the
            database: the workers may have lost theirs too.
    """
    if not jobs.try_sweep_lock(session):
        return Swept()
    expired = _expired(session) if recover else []
    ended = [_recover(session, job) for job in expired]
    idempotency.forget_old(session)
    webhooks.forget_old(session)
    audit.forget_old(session, get_settings().audit_days)
    decided = jobs.lock_decided(session, MAX_SWEPT_JOBS)
    for job in decided:
        release_or_fail_dependent(session, job)
    progress_rules.check(session)
    return Swept(
        requeued=ended.count(JobStatus.QUEUED),
        paused=ended.count(JobStatus.PAUSED),
        failed=ended.count(JobStatus.FAILED),
        cancelled=ended.count(JobStatus.CANCELLED),
        released=len(decided),
        preempted=_preempt(session) if get_settings().preemption else 0,
        woken=wake_for_free_slots(session),
    )


def _expired(session: Session) -> list[models.Job]:
    """Lock and return jobs to take from silent workers. If many leases have expired at once, it is rather the network
    than the workers: each then gets the length of one more lease."""
    lease = get_settings().lease_seconds
    late, leased = jobs.count_expired(session, lease)
    many = late > max(MANY_AT_ONCE, leased * MANY_SHARE)
    if many:
        log.warning("many leases have expired at once; their workers get one more lease", expired=late, leased=leased)
    return jobs.lock_expired(session, MAX_SWEPT_JOBS, lease, lease if many else 0.0)


def _recover(session: Session, job: models.Job) -> JobStatus:
    """Take a job from its workers, of which one has not renewed its lease. Return the new status."""
    silent = " and ".join(job_machines.silent(session, job.id))
    message = f"no heartbeat of worker {silent} in time (attempt {job.attempt})"
    if job.status is JobStatus.CANCELLING:
        to, reason = JobStatus.CANCELLED, Reason.USER
    elif job.status is JobStatus.PAUSING:
        to, reason = JobStatus.PAUSED, Reason.LOST_WORKER
    else:
        most = job.spec["limits"]["max_attempts"] or get_settings().max_attempts
        again = jobs.lost_attempts(session, job) + 1 < most
        to, reason = JobStatus.QUEUED if again else JobStatus.FAILED, Reason.LOST_WORKER
    if to in GOES_ON:
        note_lost_steps(session, job, SCHEDULER)
    change(session, job, to, actor=SCHEDULER, reason=reason, message=message)
    return to


def _preempt(session: Session) -> int:
    """Order running jobs to stop for a waiting job of a higher class. Return the number of new orders."""
    ordered = 0
    for job in jobs.lock_existing(session, SchedulerInput(session).to_preempt(), skip_locked=True):
        if job.status is JobStatus.RUNNING and not job.preempted:
            job.preempted = True
            events.add(session, job.id, "preempted", actor=SCHEDULER, message="preempted by a job of a higher class")
            ordered += 1
    session.flush()
    return ordered
