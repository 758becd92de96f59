"""Machines and their GPUs."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import Field

from calibrl.schemas.base import Record
from calibrl_core.settings.base import StrictSettings


class WorkerStatus(StrEnum):
    """Status of a machine. `draining`: finishes its jobs and takes no more. `stopping`: stops its jobs at a
    checkpoint, so that they continue on another machine. `lost`: no heartbeat. `offline`: shut down properly."""

    ONLINE = "online"
    DRAINING = "draining"
    STOPPING = "stopping"
    LOST = "lost"
    OFFLINE = "offline"


class GpuReading(Record):
    """Reading of a GPU. Memory in bytes."""

    index: int
    name: str
    uuid: str
    memory_total: int
    memory_used: int
    utilisation: float = Field(description="Utilisation in percent.")


class Gpu(GpuReading):
    """A GPU of a machine with its last reading and the job that holds it."""

    job_id: UUID | None = Field(description="Job that holds the GPU.")
    clean: bool = Field(description="True: the memory of the last job is free again, so another job can use the GPU.")


class Worker(Record):
    """A machine that runs jobs."""

    name: str
    host: str
    labels: dict[str, str]
    versions: dict[str, str]
    status: WorkerStatus
    cpu_slots: int = Field(description="Number of jobs without a GPU that the machine runs at the same time.")
    gpus: list[Gpu]
    jobs: list[UUID] = Field(description="Jobs that run on the machine.")
    heartbeat_at: datetime


class Drain(StrictSettings):
    """Options of draining a machine."""

    now: bool = Field(
        False,
        description="True: also stop the running jobs at a checkpoint and queue them again. False: let them finish.",
    )
