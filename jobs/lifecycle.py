"""A job's life: the only code that changes a status, and the lease by which one worker at a time holds a job."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal
from uuid import UUID, uuid4

from sqlalchemy.orm import Session

from jobs import models, specs
from jobs.db import wake_after_commit
from jobs.errors import Conflict, FieldError, Invalid
from jobs.repository import checkpoints, events, jobs, projects, workers
from jobs.schemas import EvaluateSpec, JobModel, JobStatus, Reason, TrainSpec
from jobs.settings import get_settings

SCHEDULER = "scheduler"
SWEPT_AT_ONCE = 100

_Q, _W, _R, _C = JobStatus.QUEUED, JobStatus.WAITING, JobStatus.RUNNING, JobStatus.CANCELLING
_SUCCEEDED, _FAILED, _CANCELLED = JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED

# From where to where. A job that is being cancelled can only be cancelled, however its run ends.
TRANSITIONS: dict[JobStatus | None, frozenset[JobStatus]] = {
    None: frozenset({_Q, _W}),
    _W: frozenset({_Q, _FAILED, _CANCELLED}),
    _Q: frozenset({_R, _FAILED, _CANCELLED}),
    _R: frozenset({_Q, _C, _SUCCEEDED, _FAILED}),
    _C: frozenset({_CANCELLED}),
    _SUCCEEDED: frozenset(),
    _FAILED: frozenset(),
    _CANCELLED: frozenset(),
}


@dataclass(frozen=True)
class Claim:
    """A worker's hold on a job: `config` is the core's TrainConfig or EvaluateConfig as JSON, every model a path."""

    job_id: UUID
    attempt: int
    token: UUID
    kind: Literal["train", "evaluate"]
    config: dict[str, Any]


class Order(StrEnum):
    """What a heartbeat tells the worker to do with its job."""

    CONTINUE = "continue"
    CANCEL = "cancel"  # the user wants it ended
    STOP = "stop"  # this worker stops: have the trainer write a checkpoint, then give the job back
    ABANDON = "abandon"  # the lease is lost: kill the trainer, write nothing more


class LeaseLost(Exception):
    """The job is no longer this claim's: another worker may hold it, or it has ended."""


@dataclass(frozen=True)
class Outcome:
    """How a claim ended. QUEUED gives the job back; it goes on from its last checkpoint."""

    status: Literal[JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.QUEUED]
    reason: Reason | None = None
    message: str | None = None
    result: dict[str, Any] | None = None


@dataclass(frozen=True)
class Swept:
    """What a sweep did, in jobs and workers."""

    requeued: int = 0
    failed: int = 0
    cancelled: int = 0
    released: int = 0
    workers_lost: int = 0
    woken: int = 0


class IllegalTransition(Exception):
    """A change of status that the table does not have: a mistake in the caller."""


def submit(session: Session, spec: TrainSpec | EvaluateSpec, *, actor: str) -> models.Job:
    """Check a spec against what exists, and add its job: queued, or waiting for the jobs it depends on.

    Raises:
        Invalid: fields that can't be met, each named.
    """
    found = specs.text_problems(spec) or [*specs.file_problems(spec), *specs.plugin_problems(spec)]
    known = jobs.hold(session, specs.dependencies(spec))
    found += specs.job_problems(spec, known)
    if not projects.exists(session, spec.project):
        found.append(FieldError("project", f"there is no project {spec.project!r}"))
    if found:
        raise Invalid("The job was not accepted.", tuple(found))
    waits = sum(job.status is not _SUCCEEDED for job in known.values())
    job = models.Job(
        id=uuid4(),
        name=spec.name,
        kind=spec.kind,
        project=spec.project,
        priority=spec.priority,
        labels=spec.labels,
        gpus=spec.resources.gpus,
        spec=spec.model_dump(mode="json"),
        dependencies=[models.JobDependency(depends_on_id=id) for id in sorted(known)],
    )
    session.add(job)
    message = f"waits for {waits} job{'s' if waits > 1 else ''}" if waits else None
    _change(session, job, _W if waits else _Q, type="submitted", actor=actor, message=message)
    return job


def cancel(session: Session, job_id: UUID, *, actor: str) -> models.Job:
    """End a job before its time: at once unless it runs, else by telling its worker at the next heartbeat.

    Raises:
        NotFound: no such job.
        Conflict: the job has already ended.
    """
    job = jobs.lock(session, job_id)
    if job.status.final:
        raise Conflict(f"Job {job_id} has already ended: it is {job.status}.")
    if job.status is not _C:
        _change(session, job, _C if job.status is _R else _CANCELLED, actor=actor, reason=Reason.USER)
    return job


def claim(session: Session, *, worker: str, gpus: int) -> Claim | None:
    """Take the next queued job for a slot with so many GPUs, by priority and then age; None where there is none."""
    while job := jobs.lock_next_queued(session, gpus):
        try:
            config = specs.core_config(job.spec, lambda model: _checkpoint(session, model))
        except specs.Unusable as error:
            _change(session, job, _FAILED, actor=SCHEDULER, reason=error.reason, message=str(error))
            continue
        token = uuid4()
        jobs.lease(session, job, token, worker, get_settings().lease_seconds)
        _change(session, job, _R, type="claimed", actor=worker)
        return Claim(job_id=job.id, attempt=job.attempt, token=token, kind=job.kind, config=config)
    return None


def fence(session: Session, claim: Claim) -> models.Job:
    """The claim's job, locked until the session ends. Every write of a run starts with this.

    A lease that has expired still holds until a sweep takes the job away: a database that was gone for a while costs
    nobody their run.

    Raises:
        LeaseLost: the job is no longer this claim's.
    """
    job = jobs.lock_leased(session, claim.job_id, claim.token)
    if job is None:
        raise LeaseLost(f"job {claim.job_id} is no longer attempt {claim.attempt}'s")
    return job


def heartbeat(session: Session, claim: Claim) -> Order:
    """Renew the lease, and hear what to do."""
    job = jobs.lock_leased(session, claim.job_id, claim.token)
    if job is None:
        return Order.ABANDON
    jobs.renew(job, get_settings().lease_seconds)
    if job.status is _C:
        return Order.CANCEL
    return Order.STOP if workers.is_stopping(session, _holder(job)) else Order.CONTINUE


def start(session: Session, claim: Claim) -> None:
    """Note that the trainer runs.

    Raises:
        LeaseLost: the job is no longer this claim's.
    """
    job = fence(session, claim)
    events.add(session, job.id, "started", actor=_holder(job), message=f"attempt {job.attempt}")


def finish(session: Session, claim: Claim, outcome: Outcome) -> None:
    """End a claim. Jobs that depend on this one are queued or fail with it.

    Raises:
        LeaseLost: the job is no longer this claim's.
    """
    job = fence(session, claim)
    job.result = outcome.result
    cancelled = job.status is _C
    status: JobStatus = _CANCELLED if cancelled else outcome.status
    reason = Reason.USER if cancelled else outcome.reason
    _change(session, job, status, actor=_holder(job), reason=reason, message=outcome.message)


def sweep(session: Session) -> Swept:
    """Mend what dead processes left: expired leases, silent workers, missed wake-ups. Safe to run anywhere."""
    if not jobs.try_sweep_lock(session):
        return Swept()
    ended = [_recover(session, job) for job in jobs.lock_expired(session, SWEPT_AT_ONCE)]
    decided = jobs.lock_decided(session, SWEPT_AT_ONCE)
    for job in decided:
        _decide(session, job)
    lost = workers.mark_lost(session, get_settings().lease_seconds)
    woken = 0
    idle = workers.idle_by_gpus(session)
    for gpus, queued in jobs.queued_by_gpus(session).items():
        # No more than can take one: wake-ups that nobody takes would pile up in the broker.
        count = min(queued, idle.get(gpus, 0))
        wake_after_commit(session, gpus, count)
        woken += count
    return Swept(
        requeued=ended.count(_Q),
        failed=ended.count(_FAILED),
        cancelled=ended.count(_CANCELLED),
        released=len(decided),
        workers_lost=lost,
        woken=woken,
    )


def _change(
    session: Session,
    job: models.Job,
    to: JobStatus,
    *,
    actor: str,
    type: str | None = None,
    reason: Reason | None = None,
    message: str | None = None,
) -> None:
    """Change a locked (or new) job's status, note it as an event, and see to what follows from it."""
    _set(session, job, to, actor=actor, type=type, reason=reason, message=message)
    if to is _Q:
        wake_after_commit(session, job.gpus)
    elif to is _SUCCEEDED:
        for dependent in jobs.lock_dependents(session, job.id):
            _decide(session, dependent)
    elif to.final:
        for descendant in jobs.lock_descendants(session, job.id):
            _fail_with(session, descendant, job.id, to)


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
    """The one place that writes a status."""
    before = job.status
    if to not in TRANSITIONS[before]:
        raise IllegalTransition(f"job {job.id} is {before} and can't become {to}")
    job.status, job.reason, job.message = to, reason, message
    if to.final:
        jobs.mark_finished(job)
    if before in jobs.LEASED and to not in jobs.LEASED:
        jobs.release(session, job, to, reason, message)
    session.flush()
    events.add(session, job.id, type or to.value, actor=actor, status=to, reason=reason, message=message)


def _fail_with(session: Session, job: models.Job, cause: UUID, status: JobStatus) -> None:
    message = f"it depends on job {cause}, which is {status}"
    _set(session, job, _FAILED, actor=SCHEDULER, reason=Reason.DEPENDENCY_FAILED, message=message)


def _decide(session: Session, job: models.Job) -> None:
    """Queue a waiting job whose dependencies have all succeeded; fail it where one has not."""
    statuses = jobs.statuses_of_dependencies(session, job.id)
    lost = [(id, status) for id, status in statuses.items() if status in (_FAILED, _CANCELLED)]
    if lost:
        _fail_with(session, job, *lost[0])
    elif all(status is _SUCCEEDED for status in statuses.values()):
        _change(session, job, _Q, actor=SCHEDULER)


def _recover(session: Session, job: models.Job) -> JobStatus:
    """Take a job from a worker that has not renewed its lease; the status it got."""
    if job.status is _C:
        to, reason = _CANCELLED, Reason.USER
    else:
        again = jobs.lost_attempts(session, job.id) + 1 < get_settings().max_attempts
        to, reason = _Q if again else _FAILED, Reason.LOST_WORKER
    message = f"worker {_holder(job)} has not been heard of in time (attempt {job.attempt})"
    _change(session, job, to, actor=SCHEDULER, reason=reason, message=message)
    return to


def _checkpoint(session: Session, model: JobModel) -> Path:
    checkpoint = checkpoints.choose(session, model.from_job, model.checkpoint)
    if checkpoint is None:
        raise specs.Unusable(Reason.DEPENDENCY_FAILED, f"job {model.from_job} has left no checkpoint")
    return Path(checkpoint.path)


def _holder(job: models.Job) -> str:
    return job.worker or SCHEDULER
