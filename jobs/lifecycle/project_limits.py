"""Limits of a project on each of its jobs, and changes of them."""

from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from calibrl.schemas import HOUR, AnySpec, Limits, Priority
from jobs import models
from jobs.errors import FieldError
from jobs.repository import projects
from jobs.scheduling.situation import CLASSES

RETENTION_NOTICE = timedelta(days=7)


def project_problems(spec: AnySpec, project: models.Project) -> list[FieldError]:
    """Return the fields of a spec that exceed limits of its project."""
    problems = [fault] if (fault := priority_problem(spec.priority, project)) else []
    longest, seconds = _longest(project), spec.limits.timeout_seconds
    if longest is not None and seconds is not None and seconds > longest:
        text = f"jobs of project {project.slug!r} run for at most {project.max_run_hours:g} hours ({longest:g} s)"
        problems.append(FieldError("limits.timeout_seconds", text))
    return problems


def priority_problem(priority: Priority, project: models.Project) -> FieldError | None:
    """Return the fault of a priority above the highest of the project, or None."""
    highest = project.max_priority
    ranks: tuple[str, ...] = CLASSES
    if highest is None or ranks.index(priority) >= ranks.index(highest):
        return None
    text = f"{priority} is above the highest priority of project {project.slug!r}: set priority to {highest}"
    return FieldError("priority", text)  # the default can be above it, too


def limited(limits: Limits, project: models.Project) -> Limits:
    """Return the limits of a job with the run time that its project allows."""
    longest = _longest(project)
    if longest is None or (limits.timeout_seconds is not None and limits.timeout_seconds <= longest):
        return limits
    return limits.model_copy(update={"timeout_seconds": longest})


def change(session: Session, slug: str, before: models.Project | None, values: dict[str, Any]) -> models.Project:
    """Add a project, or change limits of a locked one. A retention that is new or shorter deletes nothing for
    RETENTION_NOTICE, so that a mistake can be corrected."""
    old = None if before is None else before.retention_days
    project = projects.put(session, slug, values)
    new = project.retention_days
    if before is not None and new is not None and (old is None or new < old):
        projects.delay_retention(session, project, RETENTION_NOTICE)
    return project


def _longest(project: models.Project) -> float | None:
    return None if project.max_run_hours is None else project.max_run_hours * HOUR
