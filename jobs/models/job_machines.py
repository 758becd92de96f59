"""The machines that run jobs now."""

from enum import StrEnum
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from calibrl.schemas import Reason
from jobs.models.base import Base, CreatedAt, JobKey, Timestamp, text_enum


class PartState(StrEnum):
    """How far a machine is with its part of a job."""

    CALLED = "called"  # its worker has not taken the part yet
    PREPARING = "preparing"  # it brings data and models to the machine
    READY = "ready"  # it waits for the address of the main machine, or its trainer runs
    ENDED = "ended"  # its trainer has ended


class JobMachine(Base):
    """A machine that runs a part of a leased job. The main machine, with rank 0, holds the lease; the rows end with it.

    `lease_token`: lease to which the part belongs. `endpoint`: "address:port" of the main machine at which the machines
    meet, once it is known. `expires_at`: None for the main machine, whose job has this time. `reason`, `message`: why
    the trainer on this machine failed. `state_at`: time of the last change of `state`.
    """

    __tablename__ = "job_machines"
    __table_args__ = (Index(None, "worker"),)

    job_id: Mapped[JobKey]
    rank: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str]
    lease_token: Mapped[UUID]
    state: Mapped[PartState] = mapped_column(text_enum(PartState, "state"))
    state_at: Mapped[CreatedAt]
    expires_at: Mapped[Timestamp | None]
    endpoint: Mapped[str | None]
    reason: Mapped[Reason | None]
    message: Mapped[str | None]
