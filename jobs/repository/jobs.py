"""Jobs: read, lock, list, lease, progress."""

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased, defer, undefer_group

from calibrl.schemas import JobFilter, JobStatus, Reason
from jobs.errors import FieldError, Invalid, NotFound
from jobs.models import (
    Attempt,
    Checkpoint,
    Histogram,
    Job,
    JobDependency,
    JobMachine,
    JobOrigin,
    MetricBlock,
    Sample,
    StepMetrics,
    StepVisits,
)
from jobs.models.jobs import IN_LISTS
from jobs.repository import feed

LEASED = JobStatus.held_ones()
RETRY_INTERVAL = timedelta(seconds=3)  # retry interval of a supervisor that cannot reach the database
HELD_BACK = (JobStatus.WAITING, JobStatus.PAUSED)
# All code locks several jobs from old to new, and a job is newer than its dependencies: this prevents deadlocks.
_AGE = (Job.created_at, Job.id)
_SWEEP_LOCK = 0x5EE9  # arbitrary, the same for all sweeps


def try_sweep_lock(session: Session) -> bool:
    """Take the sweep lock until the transaction ends. Return False if another process has it."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(_SWEEP_LOCK))))


def find(session: Session, job_id: UUID) -> Job | None:
    """Return a job, or None if it does not exist."""
    return session.get(Job, job_id)


def existing(session: Session, ids: Collection[UUID]) -> list[Job]:
    """Return the jobs of these ids that exist."""
    return list(session.scalars(select(Job).where(Job.id.in_(ids)))) if ids else []


def get(session: Session, job_id: UUID) -> Job:
    """Return a job.

    Raises:
        NotFound: no job has this id.
    """
    return _found(find(session, job_id), job_id)


def require_visible(session: Session, ids: Sequence[UUID], projects: frozenset[str] | None) -> list[UUID]:
    """Return the ids unchanged if each is a job of one of these projects (None: of any).

    Raises:
        NotFound: a job does not exist or is not visible. The message names the first.
    """
    query = select(Job.id).where(Job.id.in_(ids))
    if projects is not None:
        query = query.where(Job.project.in_(projects))
    visible = set(session.scalars(query))
    for id in ids:
        if id not in visible:
            raise no_such(id)
    return list(ids)


def lock(session: Session, job_id: UUID) -> Job:
    """Lock a job until the transaction ends and return its present state.

    Raises:
        NotFound: no job has this id.
    """
    return _found(session.scalar(_fresh(select(Job).where(Job.id == job_id).with_for_update())), job_id)


def lock_shared(session: Session, ids: Collection[UUID]) -> dict[UUID, Job]:
    """Share-lock the jobs of these ids that exist, so that their status cannot change until the transaction ends."""
    if not ids:
        return {}
    query = select(Job).where(Job.id.in_(ids)).order_by(*_AGE).with_for_update(read=True)
    return {job.id: job for job in session.scalars(_fresh(query))}


def lock_leased(session: Session, job_id: UUID, token: UUID) -> Job | None:
    """Lock and return a job if its lease has this token, else return None."""
    return session.scalar(_fresh(select(Job).where(Job.id == job_id, Job.lease_token == token).with_for_update()))


def page(session: Session, filters: JobFilter, projects: frozenset[str] | None = None) -> list[Job]:
    """Return the jobs of these projects (None: of all) that match a filter, plus one if there are more. Columns that
    only a single job shows are not loaded.

    Raises:
        Invalid: the job `after` does not exist.
    """
    by, descending = _SORTS[filters.sort.removeprefix("-")], filters.sort.startswith("-")
    keys = by(Job)
    query = (
        select(Job)
        .options(defer(Job.spec), defer(Job.result), defer(Job.notes), undefer_group(IN_LISTS))
        .where(*_conditions(filters))
        .order_by(*(key.desc() if descending else key for key in keys))
        .limit(filters.limit + 1)
    )
    visible = [] if projects is None else [Job.project.in_(projects)]
    if filters.after is not None:
        if session.scalar(select(Job.id).where(Job.id == filters.after, *visible)) is None:
            fault = FieldError("after", f"job {filters.after} does not exist")
            raise Invalid("The start of the page does not exist.", (fault,))
        last = aliased(Job)
        place = tuple_(*(select(key).where(last.id == filters.after).scalar_subquery() for key in by(last)))
        query = query.where(tuple_(*keys) < place if descending else tuple_(*keys) > place)
    return list(session.scalars(query.where(*visible)))


def _conditions(filters: JobFilter) -> Iterator[ColumnElement[bool]]:
    if filters.status:
        yield Job.status.in_(filters.status)
    for column in ("kind", "project", "user"):
        if (value := getattr(filters, column)) is not None:
            yield getattr(Job, column) == value
    for label in filters.labels:
        yield Job.labels.contains(label)
    if filters.created_after is not None:
        yield Job.created_at >= filters.created_after
    if filters.created_before is not None:
        yield Job.created_at < filters.created_before
    if filters.ids:
        yield Job.id.in_(filters.ids)
    if filters.derived_from:
        yield Job.id.in_(select(JobOrigin.job_id).where(JobOrigin.from_id.in_(filters.derived_from)))
    if filters.q is not None:
        named = Job.name.icontains(filters.q, autoescape=True) | Job.notes.icontains(filters.q, autoescape=True)
        ids = _ids_from(filters.q)
        yield named | Job.id.between(*ids) if ids else named


def spec_values(session: Session, ids: Collection[UUID], paths: Sequence[str]) -> dict[UUID, dict[str, Any]]:
    """Return the values of fields of the specs of jobs, by job and path. A field that a spec does not have is left
    out."""
    parts = [Job.spec[tuple(path.split("."))] for path in paths]
    rows = session.execute(select(Job.id, *parts).where(Job.id.in_(ids)))
    return {
        id: {path: value for path, value in zip(paths, values, strict=True) if value is not None}
        for id, *values in rows
    }


def _ids_from(text: str) -> tuple[UUID, UUID] | None:
    """Return the smallest and the largest id that begin with a text, or None if no id can."""
    digits = text.lower().replace("-", "")
    if not 0 < len(digits) <= 32 or set(digits) - set("0123456789abcdef"):
        return None
    least, greatest = (UUID(digits.ljust(32, end)) for end in "0f")
    return (least, greatest) if str(least).startswith(text.lower()) else None


def _by_end(job: type[Job]) -> tuple[Any, ...]:
    return func.coalesce(
        job.finished_at, literal_column("'infinity'::timestamptz")
    ), job.id  # the expression of the index


# Columns to sort by. The last one is unique, so that pages are exact.
_SORTS: dict[str, Callable[[type[Job]], tuple[Any, ...]]] = {
    "created": lambda job: (job.created_at, job.id),
    "name": lambda job: (job.name, job.id),
    "status": lambda job: (job.status, job.created_at, job.id),
    "finished": _by_end,
}


def lock_queued(session: Session, job_id: UUID) -> Job | None:
    """Lock and return a queued job, or None if it is not queued or another transaction has it locked."""
    query = select(Job).where(Job.id == job_id, Job.status == JobStatus.QUEUED)
    return session.scalar(_fresh(query.with_for_update(skip_locked=True)))


def lock_lost(session: Session, job_id: UUID, attempt: int) -> Job | None:
    """Lock and return a job that was taken from a silent worker and that no worker has claimed since, if this is the
    number of its last attempt."""
    lost = (Job.status == JobStatus.QUEUED, Job.reason == Reason.LOST_WORKER, Job.attempt == attempt)
    return session.scalar(_fresh(select(Job).where(Job.id == job_id, *lost).with_for_update()))


def expired(lease_seconds: float, held_seconds: float = 0.0) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions of a job with an expired lease, or with a machine whose part has expired.

    No worker can renew a lease while the server is down: a lease that expired before the server was up again is
    extended by its full length from then on. `held_seconds`: leases that expired since then do not count.
    """
    up = func.pg_postmaster_start_time()

    def late(ends: InstrumentedAttribute[datetime | None]) -> ColumnElement[bool]:
        could = (ends > up + RETRY_INTERVAL) | (up + timedelta(seconds=lease_seconds) < func.now())
        return and_(ends < func.now() - timedelta(seconds=held_seconds), could)

    parts = select(JobMachine.rank).where(JobMachine.job_id == Job.id, late(JobMachine.expires_at))
    part = parts.correlate(Job).exists()
    return Job.status.in_(LEASED), or_(late(Job.lease_expires_at), part)


def count_expired(session: Session, lease_seconds: float) -> tuple[int, int]:
    """Return the number of jobs with an expired lease, and of all leased jobs."""
    _, late = expired(lease_seconds)
    query = select(func.count().filter(late), func.count()).select_from(Job).where(Job.status.in_(LEASED))
    expired_count, leased = session.execute(query).one()
    return expired_count, leased


def lock_expired(session: Session, limit: int, lease_seconds: float, held_seconds: float) -> list[Job]:
    """Lock and return jobs whose lease expired more than `held_seconds` ago."""
    query = select(Job).where(*expired(lease_seconds, held_seconds)).order_by(*_AGE).limit(limit)
    return list(session.scalars(_fresh(query.with_for_update(skip_locked=True))))


def lock_existing(session: Session, ids: Sequence[UUID], *, skip_locked: bool = False) -> list[Job]:
    """Lock and return the jobs of these ids that exist, with `skip_locked` those that are not locked."""
    query = select(Job).where(Job.id.in_(ids)).order_by(*_AGE)
    return list(session.scalars(_fresh(query.with_for_update(skip_locked=skip_locked))))


def lock_dependents(session: Session, job_id: UUID) -> list[Job]:
    """Lock and return the waiting or paused jobs that depend on this job."""
    ids = select(JobDependency.job_id).where(JobDependency.depends_on_id == job_id)
    return _lock_held_back(session, ids)


def open_dependent(session: Session, job_id: UUID) -> UUID | None:
    """Return a job that depends on this job and has not ended."""
    query = select(Job.id).join(JobDependency, JobDependency.job_id == Job.id)
    open_jobs = Job.status.not_in([status for status in JobStatus if status.final])
    return session.scalar(query.where(JobDependency.depends_on_id == job_id, open_jobs).limit(1))


def lock_descendants(session: Session, job_id: UUID) -> list[Job]:
    """Lock and return the waiting or paused jobs that depend on this job, directly or through other jobs."""
    tree = select(JobDependency.job_id).where(JobDependency.depends_on_id == job_id).cte(recursive=True)
    step = select(JobDependency.job_id).join(tree, JobDependency.depends_on_id == tree.c.job_id)
    return _lock_held_back(session, select(tree.union(step).c.job_id))


def lock_decided(session: Session, limit: int) -> list[Job]:
    """Lock and return waiting jobs that need not wait any more: all dependencies have succeeded, or one has failed."""
    other = aliased(Job)
    of = (
        select(other.id)
        .join(JobDependency, JobDependency.depends_on_id == other.id)
        .where(JobDependency.job_id == Job.id)
    )
    lost = exists(of.where(other.status.in_(JobStatus.broken_ones())))
    open_ = exists(of.where(other.status != JobStatus.SUCCEEDED))
    query = select(Job).where(Job.status == JobStatus.WAITING, lost | ~open_).order_by(*_AGE).limit(limit)
    return list(session.scalars(_fresh(query.with_for_update(skip_locked=True, of=Job))))


def statuses_of_dependencies(session: Session, job_id: UUID) -> dict[UUID, JobStatus]:
    """Return the statuses of the jobs that this job depends on."""
    query = select(Job.id, Job.status).join(JobDependency, JobDependency.depends_on_id == Job.id)
    return dict(session.execute(query.where(JobDependency.job_id == job_id)).all())


def lease(session: Session, job: Job, token: UUID, worker: str, seconds: float) -> None:
    """Lease a locked job to a worker and count the attempt."""
    job.lease_token, job.worker, job.preempted = token, worker, False
    job.attempt += 1
    if job.started_at is None:
        job.started_at = func.now()
    renew(job, seconds)
    session.add(Attempt(job_id=job.id, number=job.attempt, worker=worker))


def renew(job: Job, seconds: float) -> None:
    """Extend the lease of a locked job to `seconds` from now."""
    job.lease_expires_at = func.clock_timestamp() + timedelta(seconds=seconds)


def release(session: Session, job: Job, status: JobStatus, reason: Reason | None, message: str | None) -> None:
    """End the lease of a locked job and record the end of the attempt."""
    job.lease_token = job.lease_expires_at = job.worker = None
    job.preempted = False
    finished_at = func.clock_timestamp()
    ended: dict[str, Any] = {"status": status, "reason": reason, "message": message, "finished_at": finished_at}
    session.execute(update(Attempt).where(Attempt.job_id == job.id, Attempt.number == job.attempt).values(ended))


def lost_attempts(session: Session, job: Job) -> int:
    """Return the number of workers lost with this job since its last retry, and since an attempt saved a checkpoint."""
    first = max(job.forgiven + 1, job.saved_attempt)
    lost = (Attempt.job_id == job.id, Attempt.number >= first, Attempt.reason == Reason.LOST_WORKER)
    return session.scalar(select(func.count()).where(*lost)) or 0


def seconds_run(session: Session, job: Job) -> float:
    """Return the run time in seconds of all earlier attempts since the last retry."""
    ran = func.sum(func.extract("epoch", Attempt.finished_at - Attempt.started_at))
    query = select(ran).where(Attempt.job_id == job.id, Attempt.number > job.forgiven, Attempt.number < job.attempt)
    return float(session.scalar(query) or 0.0)


def mark_finished(job: Job) -> None:
    """Set the end of a locked job to now."""
    job.finished_at = func.now()


def shipped_offsets(session: Session, job_id: UUID, attempt: int) -> tuple[int, int]:
    """Return the bytes of the event file and of the log of an attempt that are in the database."""
    query = select(Attempt.events_offset, Attempt.log_offset)
    return session.execute(query.where(Attempt.job_id == job_id, Attempt.number == attempt)).one()


def set_shipped(session: Session, job_id: UUID, attempt: int, events_offset: int, log_offset: int) -> None:
    """Record the shipped bytes of the event file and of the log of an attempt, in the transaction that ships them."""
    offsets = {"events_offset": events_offset, "log_offset": log_offset}
    session.execute(update(Attempt).where(Attempt.job_id == job_id, Attempt.number == attempt).values(offsets))


def set_start(session: Session, job_id: UUID, attempt: int, step: int, record: dict[str, Any] | None) -> None:
    """Record the step from which the trainer of an attempt continued, and what it runs on."""
    values = {"first_step": step, "record": record}
    session.execute(update(Attempt).where(Attempt.job_id == job_id, Attempt.number == attempt).values(values))


def delay(job: Job, seconds: float) -> None:
    """Let a locked job start in `seconds` at the earliest."""
    job.delays += 1
    job.not_before = func.now() + timedelta(seconds=seconds)


def attempts(session: Session, job_id: UUID) -> list[Attempt]:
    """Return the attempts of a job in order."""
    return list(session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number)))


def set_progress(session: Session, job_id: UUID, step: int, steps_total: int | None) -> None:
    """Record the number of completed steps and, if known, of planned steps."""
    known = {} if steps_total is None else {"steps_total": steps_total}
    stepped_at = case((Job.step != step, func.clock_timestamp()), else_=Job.stepped_at)
    session.execute(update(Job).where(Job.id == job_id).values(step=step, stepped_at=stepped_at, **known))
    feed.changes(session, job_id)


def rewind(session: Session, job_id: UUID, to_step: int) -> None:
    """Delete metrics, histograms, samples, visits and checkpoints after a step; a resumed run writes them again."""
    tables = (StepMetrics, Histogram, Sample, StepVisits, Checkpoint)
    late = [delete(table).where(table.job_id == job_id, table.step > to_step) for table in tables]
    late.append(delete(MetricBlock).where(MetricBlock.job_id == job_id, MetricBlock.last_step > to_step))
    if sum(cast(Any, session.execute(one)).rowcount for one in late):  # not at the first start
        feed.changes(session, job_id).rewind(to_step)


def remove(session: Session, job_id: UUID) -> None:
    """Remove a job with all that belongs to it in the database. The janitor removes its folder."""
    session.execute(delete(Job).where(Job.id == job_id))


def _found(job: Job | None, job_id: UUID) -> Job:
    if job is None:
        raise no_such(job_id)
    return job


def no_such(job_id: UUID) -> NotFound:
    """Return the error for a job that does not exist or is not visible to the caller."""
    return NotFound(f"There is no job {job_id}.")


def _fresh(query: Select[Job]) -> Select[Job]:
    # After the lock, read the row again: the session may hold an older state.
    return query.execution_options(populate_existing=True)


def _lock_held_back(session: Session, ids: Select[UUID]) -> list[Job]:
    query = select(Job).where(Job.id.in_(ids), Job.status.in_(HELD_BACK)).order_by(*_AGE)
    return list(session.scalars(_fresh(query.with_for_update())))
