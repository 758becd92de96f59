"""The table of legal transitions, the only code that writes a status, and the consequences of each change."""

from uuid import UUID

from sqlalchemy.orm import Session

from calibrl.schemas import JobStatus, Reason
from jobs import models
from jobs.repository import events, job_machines, jobs, workers

SCHEDULER = "scheduler"

_Q, _W, _R, _C = JobStatus.QUEUED, JobStatus.WAITING, JobStatus.RUNNING, JobStatus.CANCELLING
_PAUSING, _PAUSED = JobStatus.PAUSING, JobStatus.PAUSED
_SUCCEEDED, _FAILED, _CANCELLED = JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED

# From each status to the next ones. A job that is being cancelled always ends as cancelled. A job that is being
# paused can still end by itself first. Only `retry` takes a job out of failed or cancelled.
TRANSITIONS: dict[JobStatus | None, frozenset[JobStatus]] = {
    None: frozenset({_Q, _W}),
    _W: frozenset({_Q, _PAUSED, _FAILED, _CANCELLED}),
    _Q: frozenset({_R, _PAUSED, _FAILED, _CANCELLED}),
    _R: frozenset({_Q, _PAUSING, _PAUSED, _C, _SUCCEEDED, _FAILED}),
    _PAUSING: frozenset({_PAUSED, _C, _SUCCEEDED, _FAILED}),
    _PAUSED: frozenset({_Q, _W, _FAILED, _CANCELLED}),
    _C: frozenset({_CANCELLED}),
    _SUCCEEDED: frozenset(),
    _FAILED: frozenset({_Q, _W}),
    _CANCELLED: frozenset({_Q, _W}),
}


class IllegalTransition(Exception):
    """A change of status that the table does not contain: a bug in the caller."""


def change(
    session: Session,
    job: models.Job,
    to: JobStatus,
    *,
    actor: str,
    type: str | None = None,
    reason: Reason | None = None,
    message: str | None = None,
) -> None:
    """Change the status of a locked (or new) job, record the event, and update the jobs that depend on it.

    The caller wakes workers once at its end: `plan_after_commit`.

    Raises:
        IllegalTransition: the table does not contain this change.
    """
    _set(session, job, to, actor=actor, type=type, reason=reason, message=message)
    if to is _SUCCEEDED:
        for dependent in jobs.lock_dependents(session, job.id):
            release_or_fail_dependent(session, dependent)
    elif to.final:
        for descendant in jobs.lock_descendants(session, job.id):
            _fail_with(session, descendant, job.id, to)


def release_or_fail_dependent(session: Session, job: models.Job) -> None:
    """Queue a waiting job if all its dependencies have succeeded. Fail a waiting or paused job if one of its
    dependencies failed or was cancelled."""
    statuses = jobs.statuses_of_dependencies(session, job.id)
    lost = [(id, status) for id, status in statuses.items() if status in (_FAILED, _CANCELLED)]
    if lost:
        _fail_with(session, job, *lost[0])
    elif job.status is _W and all(status is _SUCCEEDED for status in statuses.values()):
        change(session, job, _Q, actor=SCHEDULER)


def _set(
    session: Session,
    job: models.Job,
    to: JobStatus,
    *,
    actor: str,
    type: str | None = None,
    reason: Reason | None = None,
    message: str | None = None,
) -> None:
    before = job.status
    if to not in TRANSITIONS[before]:
        raise IllegalTransition(f"job {job.id} is {before} and cannot become {to}")
    job.status, job.reason, job.message = to, reason, message
    if to.final:
        jobs.mark_finished(job)
    if before in jobs.LEASED and to not in jobs.LEASED:
        jobs.release(session, job, to, reason, message)
        job_machines.remove(session, job.id)
        workers.release_gpus(session, job.id)
    session.flush()
    events.add(session, job.id, type or to.value, actor=actor, status=to, reason=reason, message=message)


def _fail_with(session: Session, job: models.Job, cause: UUID, status: JobStatus) -> None:
    message = f"it depends on job {cause}, which is {status}"
    _set(session, job, _FAILED, actor=SCHEDULER, reason=Reason.DEPENDENCY_FAILED, message=message)
