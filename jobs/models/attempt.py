"""Attempts: each time a worker took a job."""

from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, CreatedAt, JobKey, Timestamp
from jobs.schemas import JobStatus, Reason


class Attempt(Base):
    """`status` is the one the job left this attempt with: `queued` where it goes on in another one."""

    __tablename__ = "attempts"

    job_id: Mapped[JobKey]
    number: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str]
    started_at: Mapped[CreatedAt]
    finished_at: Mapped[Timestamp | None]
    status: Mapped[JobStatus | None]
    reason: Mapped[Reason | None]
    message: Mapped[str | None]
