"""Jobs as clients see them, and what happened in their lives."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from calibrl_core.closed import Closed
from jobs.schemas.base import Priority, Record
from jobs.schemas.status import JobStatus, Reason


class JobChanges(Closed):
    """What may be changed of a job that has been submitted."""

    priority: Priority = Field(description="its class: a higher one goes first")


class Job(Record):
    """A job as clients see it."""

    id: UUID
    name: str
    kind: Literal["train", "evaluate"]
    project: str
    user: str = Field(description="who submitted it")
    priority: Priority
    labels: dict[str, str]
    gpus: int = Field(description="GPUs that it takes; 0: a CPU slot")
    status: JobStatus
    reason: Reason | None = Field(description="why the status is what it is, where there is something to say")
    message: str | None = Field(description="the reason in a sentence; for a crash, the last lines of the log")
    step: int = Field(description="steps (training) or completions batches (evaluation) done")
    steps_total: int | None = Field(description="steps planned; None until the trainer has said so")
    attempt: int = Field(description="times a worker has started it")
    depends_on: list[UUID]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    spec: dict[str, Any] = Field(description="the spec with every default filled in")
    result: dict[str, Any] | None = Field(description="what the trainer said at its end: see `calibrl_core.report`")


class Event(Record):
    """One change in a job's life."""

    id: int
    ts: datetime
    type: str = Field(description="submitted, queued, claimed, started, checkpoint, cancelling, warning, health, ...")
    status: JobStatus | None = Field(description="the status that it led to, where it changed it")
    reason: Reason | None
    actor: str = Field(description="user, scheduler, or a worker's name")
    message: str | None
