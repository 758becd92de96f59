"""Checkpoints that jobs keep."""

from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, CreatedAt, JobKey


class Checkpoint(Base):
    """A complete checkpoint, and the metrics of its step."""

    __tablename__ = "checkpoints"

    job_id: Mapped[JobKey]
    step: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str]
    best: Mapped[bool]
    metrics: Mapped[dict[str, Any]]
    created_at: Mapped[CreatedAt]
