"""Histograms of a run."""

from uuid import UUID

from sqlalchemy.orm import Session


def upsert(session: Session, job_id: UUID, rows: list[tuple[int, str, list[float], list[int]]]) -> None:
    """Keep rows of (step, name, edges, counts), replacing those that are already there."""
    raise NotImplementedError
