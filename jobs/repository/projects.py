"""Projects: their limits, and the slots that their jobs have used."""

from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Double, Row, cast, func, select
from sqlalchemy import exists as exists_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from calibrl.schemas import JobStatus
from jobs.errors import Conflict, NotFound
from jobs.models import Attempt, Dataset, Job, Project, RecordedRun, Study

SLOTS = Job.machines * func.greatest(Job.gpus, 1)
_OPEN = (JobStatus.QUEUED, JobStatus.WAITING)
_ENDED = func.coalesce(Attempt.finished_at, func.now())
_MONTH = func.date_trunc("month", func.now())  # the connection's time zone is UTC
HALF_LIVES = 10  # after which usage is ignored: it counts less than a thousandth


def exists(session: Session, slug: str) -> bool:
    """Return True if a project of this name exists."""
    return session.get(Project, slug) is not None


def get(session: Session, slug: str) -> Project:
    """Return a project.

    Raises:
        NotFound: no project has this name.
    """
    row = session.get(Project, slug)
    if row is None:
        raise NotFound(f"There is no project {slug}.")
    return row


def lock(session: Session, slug: str) -> Project | None:
    """Lock a project until the transaction ends and return its present state, or None if it does not exist."""
    # NO KEY: rows that only refer to the project, such as those of other jobs, need not wait.
    query = select(Project).where(Project.slug == slug).with_for_update(key_share=True)
    return session.scalar(query.execution_options(populate_existing=True))


def lock_queue(session: Session, slug: str) -> Project | None:
    """Return a project, or None if it does not exist. If its queue has a limit, lock the project, so that no other
    transaction adds to its queue."""
    project = session.scalar(select(Project).where(Project.slug == slug))
    return project if project is None or project.max_queued is None else lock(session, slug)


def put(session: Session, slug: str, values: dict[str, Any]) -> Project:
    """Add a project or change it."""
    statement = insert(Project).values(slug=slug, **values)
    session.execute(statement.on_conflict_do_update(index_elements=[Project.slug], set_=values))
    return session.get_one(Project, slug, populate_existing=True)


def delay_retention(session: Session, project: Project, notice: timedelta) -> None:
    """Let the retention of a project delete nothing before a notice has passed."""
    project.retention_from = session.scalar(select(func.now() + notice))
    session.flush()


def add(session: Session, slug: str, values: dict[str, Any]) -> Project | None:
    """Add a project, or return None if it exists."""
    statement = insert(Project).values(slug=slug, **values).on_conflict_do_nothing()
    return session.scalar(statement.returning(Project))


def remove(session: Session, slug: str) -> None:
    """Remove a project with its members and webhooks.

    Raises:
        NotFound: no project has this name.
        Conflict: the project has jobs, datasets or studies.
    """
    project = lock(session, slug) or get(session, slug)
    for table, things in ((Job, "jobs"), (Dataset, "datasets"), (Study, "studies"), (RecordedRun, "recorded runs")):
        if count := session.scalar(select(func.count()).where(table.project == slug)):
            raise Conflict(f"Project {slug} has {count} {things}: remove them first.")
    session.delete(project)


def page(session: Session, *, visible_projects: frozenset[str] | None, after: str, limit: int) -> list[Project]:
    """Return some projects (None: all) by name, starting after `after`."""
    query = select(Project).where(Project.slug > after).order_by(Project.slug).limit(limit)
    if visible_projects is not None:
        query = query.where(Project.slug.in_(visible_projects))
    return list(session.scalars(query))


def all_of(session: Session) -> list[Project]:
    """Return all projects."""
    return list(session.scalars(select(Project)))


def count_open(session: Session, slug: str) -> int:
    """Return the number of jobs of a project that wait to start."""
    return session.scalar(select(func.count()).where(Job.project == slug, Job.status.in_(_OPEN))) or 0


def usage(session: Session, half_life_seconds: float) -> list[Row[Any]]:
    """Return used slots by project and user. Columns: `recent` slot-seconds, decayed by the half-life; slot-seconds
    (`month`) and GPU-seconds (`month_gpu`) of the calendar month. Running jobs count up to now."""
    rate = func.ln(2.0) / half_life_seconds

    def decayed(moment: Any) -> ColumnElement[Any]:
        # -700 is the limit of a double.
        return func.exp(func.greatest(-rate * _seconds(func.now() - moment), -700.0))

    recent = SLOTS / rate * (decayed(_ENDED) - decayed(Attempt.started_at))
    in_month = func.greatest(_seconds(_ENDED - func.greatest(Attempt.started_at, _MONTH)), 0.0)
    query = (
        select(
            Job.project,
            Job.user,
            func.sum(recent).label("recent"),
            func.sum(SLOTS * in_month).label("month"),
            func.sum(Job.machines * Job.gpus * in_month).label("month_gpu"),
        )
        .join(Attempt, Attempt.job_id == Job.id)
        .where(Attempt.finished_at.is_(None) | (Attempt.finished_at > _horizon(half_life_seconds)))
        .group_by(Job.project, Job.user)
        .order_by(Job.project, Job.user)
    )
    return list(session.execute(query))


class RunTime(NamedTuple):
    """Mean run time in seconds: of a job, and of a step (None: no job took steps)."""

    of_job: float
    of_step: float | None


def counts(session: Session, job_id: UUID, half_life_seconds: float) -> bool:
    """Return True if attempts of a job are part of `usage`: of this month, or recent for fair share."""
    ended = Attempt.finished_at.is_(None) | (Attempt.finished_at > _horizon(half_life_seconds))
    return session.scalar(select(exists_().where(Attempt.job_id == job_id, ended))) or False


def _horizon(half_life_seconds: float) -> ColumnElement[Any]:
    return func.least(_MONTH, func.now() - func.make_interval(0, 0, 0, 0, 0, 0, HALF_LIVES * half_life_seconds))


def typical_seconds(session: Session) -> dict[tuple[str, str], RunTime]:
    """Return the mean run times of the jobs that succeeded in the last week, by project and kind."""
    seconds = _seconds(Attempt.finished_at - Attempt.started_at)
    steps = func.greatest(Job.step - Attempt.first_step, 0)
    week = func.now() - func.make_interval(0, 0, 1)
    query = (
        select(Job.project, Job.kind, func.avg(seconds), func.sum(seconds) / func.nullif(func.sum(steps), 0))
        .join(Attempt, Attempt.job_id == Job.id)
        .where(Attempt.finished_at > week, Attempt.status == JobStatus.SUCCEEDED)
        .group_by(Job.project, Job.kind)
    )
    return {(project, kind): RunTime(*times) for project, kind, *times in session.execute(query)}


def _seconds(interval: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(func.extract("epoch", interval), Double)
