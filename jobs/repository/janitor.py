"""Queries and deletions of the janitor."""

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    cast,
    delete,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONPATH
from sqlalchemy.orm import Session, aliased

from calibrl.schemas import JobStatus
from jobs.models import (
    Accuracies,
    Checkpoint,
    Histogram,
    Image,
    Job,
    JobDependency,
    JobImage,
    JobMachine,
    LogChunk,
    MetricBlock,
    Project,
    Sample,
    StepMetrics,
    StepVisits,
)
from jobs.repository import feed, jobs
from jobs.repository.jobs import LEASED

MAX_JOBS_PER_RUN = 500  # jobs per run, oldest end first: the computation of their sizes takes time
_RUN_TABLES = (StepMetrics, MetricBlock, Histogram, Sample, LogChunk, Checkpoint, Accuracies, StepVisits)


def expired(session: Session, lease_seconds: float) -> list[Row[Any]]:
    """Return jobs with an expired lease: `id`, `worker` that is silent for the longest time, `attempt`, and `seconds`
    since its time ran out."""
    ends = func.coalesce(JobMachine.expires_at, Job.lease_expires_at)
    seconds = func.extract("epoch", func.now() - ends).label("seconds")
    query = select(Job.id, JobMachine.worker, Job.attempt, seconds).join(JobMachine, JobMachine.job_id == Job.id)
    rows: list[Row[Any]] = list(session.execute(query.where(*jobs.expired(lease_seconds)).order_by(ends)))
    first: dict[UUID, Row[Any]] = {}
    for row in rows:
        first.setdefault(row.id, row)
    return [*first.values()]


def known(session: Session, ids: Collection[UUID]) -> dict[UUID, Row[Any]]:
    """Return the jobs of these ids that exist: number of attempts (`attempt`), and True if a worker holds it
    (`leased`)."""
    query = select(Job.id, Job.attempt, Job.status.in_(LEASED).label("leased")).where(Job.id.in_(ids))
    rows: list[Row[Any]] = list(session.execute(query))
    return {row.id: row for row in rows}


def checkpoint_paths(session: Session, ids: Collection[UUID]) -> list[tuple[UUID, str]]:
    """Return job and path of the checkpoints that jobs keep."""
    query = select(Checkpoint.job_id, Checkpoint.path).where(Checkpoint.job_id.in_(ids))
    return [(row.job_id, row.path) for row in session.execute(query)]


def database_created_at(session: Session) -> datetime:
    """Return the time since when this database has data."""
    return session.execute(select(func.coalesce(func.min(Project.created_at), func.now()))).scalar_one()


def paths_in_use(session: Session) -> list[str]:
    """Return all paths of models and data in the specs of unfinished jobs."""
    query = select(func.jsonb_path_query(Job.spec, cast("$.**.path", JSONPATH))).where(
        Job.status.not_in(JobStatus.final_ones())
    )
    return [path for path in session.scalars(query) if isinstance(path, str)]


def commits_in_use(session: Session) -> list[str]:
    """Return all revisions of models and data in the specs of unfinished jobs."""
    query = select(func.jsonb_path_query(Job.spec, cast("$.**.revision", JSONPATH))).where(
        Job.status.not_in(JobStatus.final_ones())
    )
    return [revision for revision in session.scalars(query) if isinstance(revision, str)]


def past_retention(session: Session, ids: Collection[UUID], *, only: bool = False) -> list[Row[Any]]:
    """Return ended jobs past the retention of their project on which no unfinished job depends, and which still have
    rows or are among `ids` (`only`: only those). Columns: `id`, `project`, `retention_days`, `days` since the end,
    `bytes` in the database."""
    days = func.extract("epoch", func.now() - Job.finished_at) / 86_400
    user = aliased(Job)
    needed = (
        select(user.id)
        .join(JobDependency, JobDependency.job_id == user.id)
        .where(JobDependency.depends_on_id == Job.id, user.status.not_in(JobStatus.final_ones()))
    )
    candidates = Job.id.in_(ids)
    query = (
        select(Job.id, Job.project, Project.retention_days, days.label("days"), _kept_bytes().label("bytes"))
        .join(Project, Project.slug == Job.project)
        .where(Job.status.in_(JobStatus.final_ones()), days > Project.retention_days, ~exists(needed))
        .where(Project.retention_from.is_(None) | (Project.retention_from <= func.now()))
        .where(candidates if only else candidates | or_(*(_has(table) for table in (*_RUN_TABLES, JobImage))))
        .order_by(Job.finished_at)
        .limit(MAX_JOBS_PER_RUN)
    )
    return list(session.execute(query))


def forget(session: Session, job_id: UUID) -> int:
    """Delete the metrics, histograms, samples, images, visits, log, checkpoints and accuracies of a locked job. Return
    the number of rows. The job, its events and its attempts stay."""
    shown = list(session.scalars(select(JobImage.sha256).where(JobImage.job_id == job_id)))
    rows = 0
    for table in (*_RUN_TABLES, JobImage):
        rows += len(session.execute(delete(table).where(table.job_id == job_id).returning(table.job_id)).all())
    # Lock first: a transaction that links one of these images has its row, so the next statement sees the link.
    session.execute(select(Image.sha256).where(Image.sha256.in_(shown)).order_by(Image.sha256).with_for_update())
    session.execute(delete(Image).where(Image.sha256.in_(shown), ~exists().where(JobImage.sha256 == Image.sha256)))
    session.execute(update(Job).where(Job.id == job_id).values(log_length=0, samples_dropped=False, sample_bytes=0))
    if rows:
        feed.forget(session, job_id)
    return rows


def _has(table: Any) -> ColumnElement[bool]:
    return exists().where(table.job_id == Job.id)


def _kept_bytes() -> ColumnElement[int]:
    other = aliased(JobImage)
    shared = exists().where(other.sha256 == JobImage.sha256, other.job_id != Job.id)
    images = select(func.sum(func.length(Image.png))).join(JobImage).where(JobImage.job_id == Job.id, ~shared)
    sizes = (
        _sum(StepMetrics, func.pg_column_size(StepMetrics.values)),
        _sum(Histogram, func.pg_column_size(Histogram.edges) + func.pg_column_size(Histogram.counts)),
        _sum(Sample, Sample.bytes),
        _sum(LogChunk, func.length(LogChunk.data)),
        _sum(Accuracies, func.pg_column_size(Accuracies.prompts) + func.pg_column_size(Accuracies.values)),
        _sum(StepVisits, func.pg_column_size(literal_column(StepVisits.__tablename__))),
        images,
    )
    total: ColumnElement[int] = literal(0)
    for size in sizes:
        total = total + func.coalesce(size.correlate(Job).scalar_subquery(), 0)
    return total


def _sum(table: Any, size: Any) -> Select[Any]:
    return select(func.sum(size)).where(table.job_id == Job.id)
