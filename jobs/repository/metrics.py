"""Metrics of a run, one row a step."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session


def upsert(session: Session, job_id: UUID, rows: list[tuple[int, datetime, dict[str, Any]]]) -> None:
    """Keep rows of (step, time, values); values of a step that is already there are merged, the new ones winning."""
    raise NotImplementedError
