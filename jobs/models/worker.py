"""Workers: the slots that run jobs."""

from uuid import UUID

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, CreatedAt


class Worker(Base):
    """`status`: idle, busy, stopping or lost."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    device: Mapped[str]
    status: Mapped[str]
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    heartbeat_at: Mapped[CreatedAt]
