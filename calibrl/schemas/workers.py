"""Machines and their GPUs."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import Field

from calibrl.schemas.base import Record
from calibrl_core.settings_base import Closed


class WorkerStatus(StrEnum):
    """Whether a machine takes jobs. `draining`: it finishes what it runs and takes no more. `stopping`: it gives back
    what it runs, from a checkpoint. `lost`: nothing was heard of it. `offline`: it ended in order."""

    ONLINE = "online"
    DRAINING = "draining"
    STOPPING = "stopping"
    LOST = "lost"
    OFFLINE = "offline"


class GpuReading(Record):
    """How a GPU of a machine stands. Memory in bytes."""

    index: int
    name: str
    uuid: str
    memory_total: int
    memory_used: int
    utilisation: float = Field(description="percent")


class Gpu(GpuReading):
    """A GPU of a machine, as last heard, and who may use it."""

    job_id: UUID | None = Field(description="who holds it")
    clean: bool = Field(description="its memory is free again since its last job; only then is it given to another")


class Worker(Record):
    """A machine that runs jobs."""

    name: str
    host: str
    labels: dict[str, str]
    versions: dict[str, str]
    status: WorkerStatus
    cpu_slots: int = Field(description="jobs without a GPU that it runs at once")
    gpus: list[Gpu]
    jobs: list[UUID] = Field(description="what it runs")
    heartbeat_at: datetime


class Drain(Closed):
    """How a machine is to be drained."""

    now: bool = Field(False, description="give back what it runs, from a checkpoint, in place of finishing it")
