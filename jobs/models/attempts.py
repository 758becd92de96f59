"""Attempts: executions of jobs by workers."""

from typing import Any

from sqlalchemy import BigInteger, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from calibrl.schemas import JobStatus, Reason
from jobs.models.base import Base, CreatedAt, JobKey, Timestamp


class Attempt(Base):
    """One execution of a job. `status`: status of the job after this attempt; `queued` if another attempt follows.

    `first_step`: step at which the trainer began. `record`: what it ran on. Offsets: shipped bytes of its files.
    `lost_steps`: steps after its last checkpoint, which the next attempt runs again.
    """

    __tablename__ = "attempts"
    __table_args__ = (
        Index(None, "finished_at"),
        Index("ix_attempts_lost_steps", "lost_steps", postgresql_where=text("lost_steps > 0")),
    )

    job_id: Mapped[JobKey]
    number: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str]
    started_at: Mapped[CreatedAt]
    finished_at: Mapped[Timestamp | None]
    status: Mapped[JobStatus | None]
    reason: Mapped[Reason | None]
    message: Mapped[str | None]
    first_step: Mapped[int] = mapped_column(default=0)
    record: Mapped[dict[str, Any] | None]
    events_offset: Mapped[int] = mapped_column(BigInteger, default=0)
    log_offset: Mapped[int] = mapped_column(BigInteger, default=0)
    lost_steps: Mapped[int] = mapped_column(default=0, server_default="0")
