"""Histograms of a run."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Integer, Row, and_, cast, column, func, select, true
from sqlalchemy.dialects.postgresql import aggregate_order_by, insert
from sqlalchemy.orm import Session

from jobs.models import Histogram
from jobs.repository import feed


def upsert(session: Session, job_id: UUID, rows: list[tuple[int, str, list[float], list[int]]]) -> None:
    """Store rows of (step, name, edges, counts). They replace existing rows."""
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
    """Return histograms of one name after a step, ascending."""
    query = select(Histogram).where(Histogram.job_id == job_id, Histogram.name == name, Histogram.step > after_step)
    return list(session.scalars(query.order_by(Histogram.step).limit(limit)))


def last_step(session: Session, job_id: UUID, name: str) -> int | None:
    """Return the last step with this histogram, or None."""
    return session.scalar(select(func.max(Histogram.step)).where(Histogram.job_id == job_id, Histogram.name == name))


def merged(session: Session, job_id: UUID, name: str, *, width: int, first: int, last: int) -> list[Row[Any]]:
    """Return histograms added up over buckets of `width` steps, from the bucket of step `first` to that of `last`,
    ascending. Columns: `step` (start of the bucket), `edges`, `counts`, `merged` (number of histograms) and
    `left_out` (number of those whose edges differ from the last one of the bucket)."""
    given = func.generate_series(first & -width, last, width).table_valued(column("start", Integer)).render_derived()
    start = given.c.start
    here = and_(Histogram.job_id == job_id, Histogram.name == name, Histogram.step.between(start, start + (width - 1)))
    newest = select(Histogram.edges).where(here).order_by(Histogram.step.desc()).limit(1).correlate(given).lateral()
    alike = Histogram.edges == newest.c.edges
    number = select(func.count().filter(alike).label("merged"), func.count().filter(~alike).label("left_out"))
    tally = number.select_from(Histogram).where(here).correlate(given, newest).lateral()
    each = func.unnest(Histogram.counts).table_valued(column("count", BigInteger), with_ordinality="bin")
    each = each.render_derived()
    sums = select(each.c.bin, cast(func.sum(each.c.count), BigInteger).label("count"))
    summed = sums.select_from(Histogram).join(each, true()).where(here, alike).group_by(each.c.bin)
    bins = summed.correlate(given, newest).lateral()
    counts = select(func.array_agg(aggregate_order_by(bins.c.count, bins.c.bin)).label("counts")).lateral()
    query = select(start.label("step"), newest.c.edges, counts.c.counts, tally.c.merged, tally.c.left_out).order_by(
        start
    )
    return list(session.execute(query))
