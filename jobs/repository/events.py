"""Events of jobs."""

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
    """Record an event now, and queue messages for the webhooks that receive it."""
    event = Event(job_id=job_id, type=type, actor=actor, status=status, reason=reason, message=message)
    session.add(event)
    feed.changes(session, job_id).events.append(event)
    data = {"job_id": str(job_id), "status": status, "reason": reason, "actor": actor, "message": message}
    webhooks.enqueue_deliveries(session, job_id, f"job.{status or type}", data)


def page(session: Session, job_id: UUID, *, after: int, limit: int) -> list[Event]:
    """Return the events of a job after the id `after`, in order."""
    query = select(Event).where(Event.job_id == job_id, Event.id > after).order_by(Event.id).limit(limit)
    return list(session.scalars(query))
