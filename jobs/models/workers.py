"""Workers: machines that run jobs, and their GPUs."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, false
from sqlalchemy.orm import Mapped, mapped_column, relationship

from calibrl.schemas import WorkerStatus
from jobs.models.base import Base, CreatedAt, Timestamp


class Gpu(Base):
    """A GPU, held by `job_id`. After a job it is not `clean` until its memory is free; `released_at`: end of that
    job."""

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
    released_at: Mapped[Timestamp | None]


class Worker(Base):
    """A worker. `drained`: it must not take jobs, also after a restart. `stuck_slots`: number of slots that run lost
    jobs and take no others."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    labels: Mapped[dict[str, Any]]
    versions: Mapped[dict[str, Any]]
    status: Mapped[WorkerStatus]
    drained: Mapped[bool] = mapped_column(default=False, server_default=false())
    cpu_slots: Mapped[int]
    stuck_slots: Mapped[int] = mapped_column(default=0, server_default="0")
    heartbeat_at: Mapped[CreatedAt]

    gpus: Mapped[list[Gpu]] = relationship(lazy="selectin", order_by=Gpu.index)
