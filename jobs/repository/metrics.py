"""Metrics of a run, one row per step."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Text, any_, cast, column, func, select
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Session

from jobs.models import StepMetrics
from jobs.repository import curves, feed


def upsert(session: Session, job_id: UUID, rows: list[tuple[int, datetime, dict[str, Any]]]) -> None:
    """Store rows of (step, time, values). Values of an existing step are merged; new values win.

    Only one process writes the metrics of a job at a time: the caller has the row of the job locked.
    """
    merged: dict[int, dict[str, Any]] = {}
    for step, ts, values in rows:
        known = merged.get(step, {"values": {}})
        merged[step] = {"job_id": job_id, "step": step, "ts": ts, "values": {**known["values"], **values}}
    if not merged:
        return
    last_before = curves.last_step(session, job_id)
    statement = insert(StepMetrics)
    statement = statement.on_conflict_do_update(
        index_elements=[StepMetrics.job_id, StepMetrics.step],
        set_={"ts": statement.excluded.ts, "values": StepMetrics.values.op("||")(statement.excluded["values"])},
    )
    session.execute(statement, list(merged.values()))
    curves.summarise(session, job_id, merged, last_before)
    feed.changes(session, job_id).steps.update(merged)


def last_values(session: Session, job_id: UUID, name: str, limit: int | None) -> list[tuple[int, float]]:
    """Return the last values of a metric that are not NaN (None: all) as (step, value), ascending."""
    value = StepMetrics.values[name].astext
    query = select(StepMetrics.step, value).where(StepMetrics.job_id == job_id, StepMetrics.values.has_key(name))
    rows = session.execute(query.where(value != "NaN").order_by(StepMetrics.step.desc()).limit(limit)).all()
    return [(step, float(number)) for step, number in reversed(rows)]


def page(
    session: Session, job_id: UUID, *, names: list[str] | None, after_step: int, limit: int
) -> list[tuple[int, datetime, dict[str, Any]]]:
    """Return rows of (step, time, values) after a step, ascending. With `names`, only these metrics and only rows
    with at least one of them."""
    query = select(StepMetrics.step, StepMetrics.ts, StepMetrics.values)
    if names is not None:
        requested = cast(names, ARRAY(Text))
        each = func.jsonb_each(StepMetrics.values).table_valued("key", "value")
        chosen = select(func.jsonb_object_agg(column("key"), column("value"))).select_from(each)
        picked = chosen.where(column("key") == any_(requested)).scalar_subquery()
        query = select(StepMetrics.step, StepMetrics.ts, picked).where(StepMetrics.values.op("?|")(requested))
    query = (
        query.where(StepMetrics.job_id == job_id, StepMetrics.step > after_step).order_by(StepMetrics.step).limit(limit)
    )
    return list(session.execute(query))
