"""Who waits, and why."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import Field

from calibrl.schemas.base import Priority, Record
from calibrl.schemas.status import JobStatus


class WaitReason(StrEnum):
    """Why a queued job does not start now."""

    NO_MACHINE = "no_machine"  # none that is up has so many GPUs, or its labels
    BUSY = "busy"  # every slot that would do is taken
    RESERVED = "reserved"  # what is free is kept for a job before it
    PROJECT_LIMIT = "project_limit"  # its project runs as many GPUs as it may
    BUDGET = "budget"  # its project, or its user there, has used up the month's slot-hours
    WAITING = "waiting"  # for jobs that it depends on
    PAUSED = "paused"


class QueueEntry(Record):
    """A job that has not started, and why."""

    job_id: UUID
    name: str
    project: str
    user: str
    priority: Priority
    gpus: int
    status: JobStatus
    position: int | None = Field(description="1: the next; None where it isn't in line")
    reason: WaitReason | None = Field(description="None: it is about to start")
    explanation: str = Field(description="the reason in a sentence")
    estimated_start: datetime | None = Field(description="None where it can't be told")
    queued_at: datetime
