"""What happened in a job's life."""

from uuid import UUID

from sqlalchemy.orm import Session

from jobs.schemas import JobStatus, Reason


def add(
    session: Session,
    job_id: UUID,
    type: str,
    *,
    actor: str,
    status: JobStatus | None = None,
    reason: Reason | None = None,
    message: str | None = None,
) -> None:
    """Note an event, now."""
    raise NotImplementedError
