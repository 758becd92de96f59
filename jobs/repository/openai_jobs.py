"""Training jobs in the order of OpenAI's client, and their events and metrics as one list."""

import heapq
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import Select, select, tuple_
from sqlalchemy.orm import Session

from calibrl.schemas import JobStatus
from jobs.errors import FieldError, Invalid
from jobs.models import Event, Job, StepMetrics

TRAIN = "train"


class TrainedJob(NamedTuple):
    """Columns that describe the model of a training job. `model`: of the spec."""

    id: UUID
    name: str
    project: str
    created_at: datetime
    finished_at: datetime | None
    model: dict[str, Any]


def page(
    session: Session,
    *,
    visible_projects: frozenset[str] | None,
    project: str | None,
    labels: Mapping[str, str],
    unlabelled: bool,
    after: UUID | None,
    limit: int,
) -> list[Job]:
    """Return training jobs with these labels from new to old, starting after `after`.

    Args:
        visible_projects: only jobs of these projects; None: of all.
        unlabelled: only jobs without labels.

    Raises:
        Invalid: the job `after` does not exist.
    """
    conditions = [Job.kind == TRAIN]
    if visible_projects is not None:
        conditions.append(Job.project.in_(visible_projects))
    if project is not None:
        conditions.append(Job.project == project)
    if after is not None:
        last = session.get(Job, after)
        if last is None or not (visible_projects is None or last.project in visible_projects):
            raise _no_start(f"job {after} does not exist")
        conditions.append(tuple_(Job.created_at, Job.id) < tuple_(last.created_at, last.id))
    if labels:
        conditions.append(Job.labels.contains(dict(labels)))
    if unlabelled:
        conditions.append(Job.labels == {})
    query = select(Job).where(*conditions).order_by(Job.created_at.desc(), Job.id.desc())
    return list(session.scalars(query.limit(limit)))


def succeeded(
    session: Session, *, visible_projects: frozenset[str] | None, project: str | None, limit: int
) -> list[TrainedJob]:
    """Return training jobs that have succeeded, from new to old; `visible_projects` as in `page`."""
    query = _succeeded(visible_projects)
    if project is not None:
        query = query.where(Job.project == project)
    rows = session.execute(query.order_by(Job.created_at.desc(), Job.id.desc()).limit(limit))
    return [TrainedJob(*row) for row in rows]


def trained(session: Session, id: UUID, visible_projects: frozenset[str] | None) -> TrainedJob | None:
    """Return a training job if it has succeeded and is visible, else None."""
    row = session.execute(_succeeded(visible_projects).where(Job.id == id)).one_or_none()
    return None if row is None else TrainedJob(*row)


def _succeeded(visible_projects: frozenset[str] | None) -> Select[Any]:
    columns = Job.id, Job.name, Job.project, Job.created_at, Job.finished_at, Job.spec["model"]
    query = select(*columns).where(Job.kind == TRAIN, Job.status == JobStatus.SUCCEEDED)
    return query if visible_projects is None else query.where(Job.project.in_(visible_projects))


def events_and_metrics(
    session: Session, job_id: UUID, *, after: tuple[Literal["event", "step"], int] | None, limit: int
) -> list[Event | StepMetrics]:
    """Return the events of a job and the metrics of its steps from new to old, starting after `after` (the id of an
    event, or a step).

    Raises:
        Invalid: `after` names nothing.
    """
    events = select(Event).where(Event.job_id == job_id).order_by(Event.id.desc()).limit(limit)
    steps = select(StepMetrics).where(StepMetrics.job_id == job_id).order_by(StepMetrics.step.desc()).limit(limit)
    if after is not None:
        kind, number = after
        if kind == "event":
            at = _time(session, job_id, session.get(Event, number))
            events, steps = events.where(Event.id < number), steps.where(StepMetrics.ts <= at)
        else:
            at = _time(session, job_id, session.get(StepMetrics, (job_id, number)))
            events, steps = events.where(Event.ts < at), steps.where(StepMetrics.step < number)
    # At equal times the event comes first, consistent with the conditions above.
    both: tuple[Iterable[Event | StepMetrics], ...] = (session.scalars(events), session.scalars(steps))
    merged = heapq.merge(*both, key=_ts, reverse=True)
    return list(islice(merged, limit))


def _ts(row: Event | StepMetrics) -> datetime:
    return row.ts


def _time(session: Session, job_id: UUID, row: Event | StepMetrics | None) -> datetime:
    if row is None or row.job_id != job_id:
        raise _no_start("the event does not exist")
    return row.ts


def _no_start(text: str) -> Invalid:
    return Invalid("The start of the page does not exist.", (FieldError("after", text),))
