"""Alert rules of projects, and the jobs that they concern."""

from collections.abc import Collection
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Double, case, cast, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from calibrl.schemas import JobStatus
from calibrl.schemas.alert_rules import MAX_RULES
from jobs.errors import Conflict, NotFound
from jobs.models import AlertRule, Job, Project
from jobs.repository.jobs import LEASED

NO_PROGRESS = "no_progress"  # type of the condition that no metric decides
_TYPE = AlertRule.condition["type"].astext


class Pace(NamedTuple):
    """A job that has started and not ended. `seconds`: since its last step, or since the start of its attempt if that
    is later; None if it does not run."""

    job_id: UUID
    name: str
    labels: dict[str, str]
    seconds: float | None


def add(session: Session, values: dict[str, Any], *, user: str) -> AlertRule:
    """Add a rule to a project.

    Raises:
        Conflict: the project has a rule of this name, or as many rules as it can have.
        NotFound: there is no such project.
    """
    project, name = values["project"], values["name"]
    # Lock the project, so that two requests at once do not exceed the limit.
    query = select(Project.slug).where(Project.slug == project).with_for_update(key_share=True)
    if session.scalar(query) is None:
        raise NotFound(f"There is no project {project}.")
    known = session.scalar(select(func.count()).where(AlertRule.project == project)) or 0
    if known >= MAX_RULES:
        raise Conflict(f"Project {project} has {known} alert rules, the maximum. Remove one first.")
    statement = insert(AlertRule).values(**values, created_by=user).on_conflict_do_nothing()
    row: AlertRule | None = session.scalar(statement.returning(AlertRule))
    if row is None:
        raise Conflict(f"Project {project} has an alert rule {name} already. Choose another name, or change that rule.")
    return row


def get(session: Session, id: UUID) -> AlertRule:
    """Return a rule.

    Raises:
        NotFound: no rule has this id.
    """
    return _found(session.get(AlertRule, id), id)


def lock(session: Session, id: UUID) -> AlertRule:
    """Lock and return a rule.

    Raises:
        NotFound: no rule has this id.
    """
    query = select(AlertRule).where(AlertRule.id == id).with_for_update()
    return _found(session.scalar(query.execution_options(populate_existing=True)), id)


def _found(row: AlertRule | None, id: UUID) -> AlertRule:
    if row is None:
        raise no_such(id)
    return row


def no_such(id: UUID) -> NotFound:
    """Return the error for a rule that does not exist or is not visible to the caller."""
    return NotFound(f"There is no alert rule {id}.")


def of_projects(session: Session, slugs: Collection[str] | None) -> list[AlertRule]:
    """Return the rules of these projects (None: of all) by project and name."""
    query = select(AlertRule).order_by(AlertRule.project, AlertRule.name)
    return list(session.scalars(query if slugs is None else query.where(AlertRule.project.in_(slugs))))


def on_metrics(session: Session, project: str) -> list[AlertRule]:
    """Return the rules of a project that metrics decide."""
    query = select(AlertRule).where(AlertRule.project == project, _TYPE != NO_PROGRESS)
    return list(session.scalars(query.order_by(AlertRule.name)))


def on_progress(session: Session) -> list[AlertRule]:
    """Return the rules of all projects on the progress of jobs."""
    return list(session.scalars(select(AlertRule).where(_TYPE == NO_PROGRESS).order_by(AlertRule.name)))


def remove(session: Session, rule: AlertRule) -> None:
    """Delete a rule."""
    session.execute(delete(AlertRule).where(AlertRule.id == rule.id))


def paces(session: Session, project: str) -> list[Pace]:
    """Return the jobs of a project that have started and not ended, from old to new."""
    since = func.greatest(Job.stepped_at, Job.attempt_started_at)
    seconds = case((Job.status.in_(LEASED), func.extract("epoch", func.clock_timestamp() - since)))
    query = select(Job.id, Job.name, Job.labels, cast(seconds, Double)).where(Job.project == project, Job.attempt > 0)
    query = query.where(Job.status.not_in(JobStatus.final_ones())).order_by(Job.created_at, Job.id)
    return [Pace(*row) for row in session.execute(query)]
