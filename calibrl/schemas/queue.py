"""Waiting jobs, with the reason for waiting."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import Field

from calibrl.schemas.base import Priority, Record
from calibrl.schemas.status import JobStatus


class WaitReason(StrEnum):
    """Reason why a queued job does not start now."""

    NO_MACHINE = "no_machine"  # too few machines that are online have enough GPUs and the labels
    BUSY = "busy"  # all suitable slots are occupied
    RESERVED = "reserved"  # the free slots are reserved for an earlier job
    PROJECT_LIMIT = "project_limit"  # the project has reached max_gpus
    BUDGET = "budget"  # the project or the user has used up the slot-hours of the month
    LATER = "later"  # its last start failed by a fault that can pass; it waits before the next one
    WAITING = "waiting"  # the jobs that it depends on have not succeeded yet
    PAUSED = "paused"


class QueueEntry(Record):
    """A job that has not started, with the reason."""

    job_id: UUID
    name: str
    project: str
    user: str
    priority: Priority
    machines: int = Field(1, description="Number of machines that the job needs at the same time.")
    gpus: int = Field(description="Number of GPUs that it needs on each of them. 0: one CPU slot.")
    status: JobStatus
    position: int | None = Field(description="Position in the queue. 1: next. None: the job is not in line.")
    reason: WaitReason | None = Field(description="Reason for waiting. None: the job is about to start.")
    explanation: str = Field(description="The reason in one sentence.")
    estimated_start: datetime | None = Field(description="Estimated start. None: it cannot be estimated.")
    queued_at: datetime
