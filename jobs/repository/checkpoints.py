"""Checkpoints that jobs keep."""

from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session


def record(
    session: Session, job_id: UUID, step: int, path: str, best: bool, metrics: dict[str, Any], removed: list[str]
) -> None:
    """Note a written checkpoint and the paths that are gone now. `best` takes the mark from the one that had it."""
    raise NotImplementedError
