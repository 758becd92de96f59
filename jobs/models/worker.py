"""Workers: the machines that run jobs, and their GPUs."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column, relationship

from jobs.models.base import Base, CreatedAt
from jobs.schemas import WorkerStatus


class Gpu(Base):
    """`job_id` holds it. Between two jobs it is not `clean` until its memory is free again."""

    __tablename__ = "gpus"

    worker: Mapped[str] = mapped_column(ForeignKey("workers.name", ondelete="CASCADE"), primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    uuid: Mapped[str]
    memory_total: Mapped[int] = mapped_column(BigInteger)
    memory_used: Mapped[int] = mapped_column(BigInteger)
    utilisation: Mapped[float]
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"), index=True)
    clean: Mapped[bool]


class Worker(Base):
    """`stuck_slots` run jobs that are no longer this worker's, and can take no other."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    labels: Mapped[dict[str, Any]]
    versions: Mapped[dict[str, Any]]
    status: Mapped[WorkerStatus]
    cpu_slots: Mapped[int]
    stuck_slots: Mapped[int] = mapped_column(default=0, server_default="0")
    heartbeat_at: Mapped[CreatedAt]

    gpus: Mapped[list[Gpu]] = relationship(lazy="selectin", order_by=Gpu.index)
