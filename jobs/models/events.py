"""Events in the history of a job, in order."""

from sqlalchemy import Index
from sqlalchemy.orm import Mapped

from calibrl.schemas import JobStatus, Reason
from jobs.models.base import Base, CreatedAt, JobRef, Serial


class Event(Base):
    """One event. `actor`: the user or the part of the service that caused it."""

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
