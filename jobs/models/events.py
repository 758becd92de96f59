"""Events in the history of a job, in order."""

from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped

from calibrl.schemas import JobStatus, Reason
from jobs.models.base import Base, CreatedAt, JobRef, Serial


class Event(Base):
    """One event. `actor`: the user or the part of the service that caused it. `alert`: a `HealthAlert`."""

    __tablename__ = "events"
    __table_args__ = (Index(None, "job_id", "id"),)

    id: Mapped[Serial]
    job_id: Mapped[JobRef]
    ts: Mapped[CreatedAt]
    type: Mapped[str]
    status: Mapped[JobStatus | None]
    reason: Mapped[Reason | None]
    actor: Mapped[str]
    message: Mapped[str | None]
    alert: Mapped[dict[str, Any] | None]
