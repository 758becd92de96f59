"""Histograms of a run."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
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
