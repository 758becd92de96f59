"""Histograms of a run."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Row, column, func, select, true
from sqlalchemy.dialects.postgresql import aggregate_order_by, distinct_on, insert
from sqlalchemy.orm import Session

from jobs.models import Histogram
from jobs.repository import feed


def upsert(session: Session, job_id: UUID, rows: list[tuple[int, str, list[float], list[int]]]) -> None:
    """Keep rows of (step, name, edges, counts), replacing those that are already there."""
    latest = {
        (step, name): {"job_id": job_id, "step": step, "name": name, "edges": edges, "counts": counts}
        for step, name, edges, counts in rows
    }
    if not latest:
        return
    statement = insert(Histogram)
    statement = statement.on_conflict_do_update(
        index_elements=[Histogram.job_id, Histogram.name, Histogram.step],
        set_={"edges": statement.excluded.edges, "counts": statement.excluded.counts},
    )
    session.execute(statement, list(latest.values()))
    changed = feed.changes(session, job_id).histograms
    for step, name in latest:
        changed.setdefault(name, set()).add(step)


def page(session: Session, job_id: UUID, *, name: str, after_step: int, limit: int) -> list[Histogram]:
    """Histograms of one name past a step, ascending."""
    query = select(Histogram).where(Histogram.job_id == job_id, Histogram.name == name, Histogram.step > after_step)
    return list(session.scalars(query.order_by(Histogram.step).limit(limit)))


def last_step(session: Session, job_id: UUID, name: str) -> int | None:
    """The last step that has this histogram; None where there is none."""
    return session.scalar(select(func.max(Histogram.step)).where(Histogram.job_id == job_id, Histogram.name == name))


def merged(session: Session, job_id: UUID, name: str, *, width: int, first: int) -> list[Row[Any]]:
    """Histograms of `width` steps added up, from the bucket with the step `first` on, ascending: `step` (where the
    bucket begins), `edges`, `counts`, `merged` (how many) and `left_out` (how many have other edges than the last)."""
    start = Histogram.step.bitwise_and(-width).label("start")
    of_name = select(start, Histogram.step, Histogram.edges, Histogram.counts)
    of_name = of_name.where(Histogram.job_id == job_id, Histogram.name == name, Histogram.step >= (first & -width))
    rows = of_name.cte("rows")
    last = (
        select(rows.c.start, rows.c.edges)
        .ext(distinct_on(rows.c.start))
        .order_by(rows.c.start, rows.c.step.desc())
        .cte("last")
    )
    alike = rows.c.edges == last.c.edges
    number = select(
        rows.c.start,
        func.count().filter(alike).label("merged"),
        func.count().filter(~alike).label("left_out"),
    )
    number = number.join(last, last.c.start == rows.c.start).group_by(rows.c.start).cte("number")
    each = func.unnest(rows.c.counts).table_valued(column("count", BigInteger), with_ordinality="bin").render_derived()
    sums = select(rows.c.start, each.c.bin, func.sum(each.c.count).cast(BigInteger).label("count"))
    sums = sums.select_from(rows.join(last, (last.c.start == rows.c.start) & alike).join(each, true()))
    bins = sums.group_by(rows.c.start, each.c.bin).cte("bins")
    counts = func.array_agg(aggregate_order_by(bins.c.count, bins.c.bin))
    whole = select(bins.c.start, counts.label("counts")).group_by(bins.c.start).cte("whole")
    query = select(whole.c.start.label("step"), last.c.edges, whole.c.counts, number.c.merged, number.c.left_out)
    query = query.join(last, last.c.start == whole.c.start).join(number, number.c.start == whole.c.start)
    return list(session.execute(query.order_by(whole.c.start)))
