"""Metrics of a run, one row per step."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Text, any_, cast, column, func, select
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Session

from jobs.models import Metric
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
    statement = insert(Metric)
    statement = statement.on_conflict_do_update(
        index_elements=[Metric.job_id, Metric.step],
        set_={"ts": statement.excluded.ts, "values": Metric.values.op("||")(statement.excluded["values"])},
    )
    session.execute(statement, list(merged.values()))
    curves.summarise(session, job_id, merged, last_before)
    feed.changes(session, job_id).steps.update(merged)


def page(
    session: Session, job_id: UUID, *, names: list[str] | None, after_step: int, limit: int
) -> list[tuple[int, datetime, dict[str, Any]]]:
    """Return rows of (step, time, values) after a step, ascending. With `names`, only these metrics and only rows
    with at least one of them."""
    query = select(Metric.step, Metric.ts, Metric.values)
    if names is not None:
        wanted = cast(names, ARRAY(Text))
        each = func.jsonb_each(Metric.values).table_valued("key", "value")
        chosen = select(func.jsonb_object_agg(column("key"), column("value"))).select_from(each)
        picked = chosen.where(column("key") == any_(wanted)).scalar_subquery()
        query = select(Metric.step, Metric.ts, picked).where(Metric.values.op("?|")(wanted))
    query = query.where(Metric.job_id == job_id, Metric.step > after_step).order_by(Metric.step).limit(limit)
    return list(session.execute(query))
