"""What happened in a job's life."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from calibrl.schemas import JobStatus, Reason
from jobs.models import Event
from jobs.repository import feed, webhooks


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
    """Note an event, now, and have the webhooks be told that want to know of it."""
    event = Event(job_id=job_id, type=type, actor=actor, status=status, reason=reason, message=message)
    session.add(event)
    feed.changes(session, job_id).events.append(event)
    told = {"job_id": str(job_id), "status": status, "reason": reason, "actor": actor, "message": message}
    webhooks.tell(session, job_id, f"job.{status or type}", told)


def page(session: Session, job_id: UUID, *, after: int, limit: int) -> list[Event]:
    """A job's events past the one with id `after`, in order."""
    query = select(Event).where(Event.job_id == job_id, Event.id > after).order_by(Event.id).limit(limit)
    return list(session.scalars(query))
