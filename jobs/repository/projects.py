"""Projects: what jobs are grouped by, what each may use, and what it has used."""

from typing import Any

from sqlalchemy import ColumnElement, Double, Row, cast, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from calibrl.schemas import JobStatus
from jobs.errors import NotFound
from jobs.models import Attempt, Job, Project

SLOTS = func.greatest(Job.gpus, 1)
_OPEN = (JobStatus.QUEUED, JobStatus.WAITING)
_ENDED = func.coalesce(Attempt.finished_at, func.now())
_MONTH = func.date_trunc("month", func.now())  # the connection's time zone is UTC
HALF_LIVES = 10  # after which what was used counts for nothing: a thousandth


def exists(session: Session, slug: str) -> bool:
    """Whether there is a project of this name."""
    return session.get(Project, slug) is not None


def get(session: Session, slug: str) -> Project:
    """A project.

    Raises:
        NotFound: there is none of this name.
    """
    found = session.get(Project, slug)
    if found is None:
        raise NotFound(f"There is no project {slug}.")
    return found


def lock(session: Session, slug: str) -> Project | None:
    """A project to whose queue nobody else adds until the transaction ends; None where there is none."""
    return session.scalar(select(Project).where(Project.slug == slug).with_for_update())


def put(session: Session, slug: str, values: dict[str, Any]) -> Project:
    """Add a project, or change one."""
    statement = insert(Project).values(slug=slug, **values)
    session.execute(statement.on_conflict_do_update(index_elements=[Project.slug], set_=values))
    return session.get_one(Project, slug, populate_existing=True)


def page(session: Session, *, among: frozenset[str] | None, after: str, limit: int) -> list[Project]:
    """Some projects (None: all) by name, from the one after `after` on."""
    query = select(Project).where(Project.slug > after).order_by(Project.slug).limit(limit)
    if among is not None:
        query = query.where(Project.slug.in_(among))
    return list(session.scalars(query))


def all_of(session: Session) -> list[Project]:
    """Every project."""
    return list(session.scalars(select(Project)))


def count_open(session: Session, slug: str) -> int:
    """How many of a project's jobs wait to start."""
    return session.scalar(select(func.count()).where(Job.project == slug, Job.status.in_(_OPEN))) or 0


def usage(session: Session, half_life_seconds: float) -> list[Row[Any]]:
    """By project and user: `recent` slot-seconds, each counting half after a half-life, and the calendar month's
    `month` slot-seconds and `month_gpu` GPU-seconds. What still runs counts up to now."""
    rate = func.ln(2.0) / half_life_seconds

    def decayed(moment: Any) -> ColumnElement[Any]:
        # Not below what a double can hold.
        return func.exp(func.greatest(-rate * _seconds(func.now() - moment), -700.0))

    recent = SLOTS / rate * (decayed(_ENDED) - decayed(Attempt.started_at))
    in_month = func.greatest(_seconds(_ENDED - func.greatest(Attempt.started_at, _MONTH)), 0.0)
    horizon = func.least(_MONTH, func.now() - func.make_interval(0, 0, 0, 0, 0, 0, HALF_LIVES * half_life_seconds))
    query = (
        select(
            Job.project,
            Job.user,
            func.sum(recent).label("recent"),
            func.sum(SLOTS * in_month).label("month"),
            func.sum(Job.gpus * in_month).label("month_gpu"),
        )
        .join(Attempt, Attempt.job_id == Job.id)
        .where(Attempt.finished_at.is_(None) | (Attempt.finished_at > horizon))
        .group_by(Job.project, Job.user)
        .order_by(Job.project, Job.user)
    )
    return list(session.execute(query))


def typical_seconds(session: Session) -> dict[tuple[str, str], float]:
    """How long a project's jobs of each kind ran, in the mean over the week's succeeded ones."""
    ran = func.avg(_seconds(Attempt.finished_at - Attempt.started_at))
    week = func.now() - func.make_interval(0, 0, 1)
    query = (
        select(Job.project, Job.kind, ran)
        .join(Attempt, Attempt.job_id == Job.id)
        .where(Attempt.finished_at > week, Attempt.status == JobStatus.SUCCEEDED)
        .group_by(Job.project, Job.kind)
    )
    return {(project, kind): seconds for project, kind, seconds in session.execute(query)}


def _seconds(interval: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(func.extract("epoch", interval), Double)
