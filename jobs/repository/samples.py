"""Sampled groups of a run."""

from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session


def insert(session: Session, job_id: UUID, step: int, group: dict[str, Any], max_bytes: int) -> bool:
    """Keep a group, unless the job's samples and their images would then exceed `max_bytes`.

    Returns whether it was kept; the first drop is said by an event. Put the group's images after it, if it was kept.
    """
    raise NotImplementedError
