"""A job's life: the only code that changes a status, and the lease by which one worker at a time holds a job."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from sqlalchemy.orm import Session

from jobs import models
from jobs.schemas import EvaluateSpec, JobStatus, Reason, TrainSpec


@dataclass(frozen=True)
class Claim:
    """A worker's hold on a job: `config` is the core's TrainConfig or EvaluateConfig as JSON, every model a path."""

    job_id: UUID
    attempt: int
    token: UUID
    kind: Literal["train", "evaluate"]
    config: dict[str, Any]


class Order(StrEnum):
    """What a heartbeat tells the worker to do with its job."""

    CONTINUE = "continue"
    CANCEL = "cancel"  # the user wants it ended
    STOP = "stop"  # this worker stops: have the trainer write a checkpoint, then give the job back
    ABANDON = "abandon"  # the lease is lost: kill the trainer, write nothing more


class LeaseLost(Exception):
    """The job is no longer this claim's: another worker may hold it, or it has ended."""


@dataclass(frozen=True)
class Outcome:
    """How a claim ended. QUEUED gives the job back; it goes on from its last checkpoint."""

    status: Literal[JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.QUEUED]
    reason: Reason | None = None
    message: str | None = None
    result: dict[str, Any] | None = None


@dataclass(frozen=True)
class Swept:
    """What a sweep did, in jobs and workers."""

    requeued: int = 0
    failed: int = 0
    cancelled: int = 0
    released: int = 0
    workers_lost: int = 0
    woken: int = 0


def submit(session: Session, spec: TrainSpec | EvaluateSpec, *, actor: str) -> models.Job:
    """Check a spec against what exists, and add its job: queued, or waiting for the jobs it depends on.

    Raises:
        Invalid: fields that can't be met, each named.
    """
    raise NotImplementedError


def cancel(session: Session, job_id: UUID, *, actor: str) -> models.Job:
    """End a job before its time: at once unless it runs, else by telling its worker at the next heartbeat.

    Raises:
        NotFound: no such job.
        Conflict: the job has already ended.
    """
    raise NotImplementedError


def claim(session: Session, *, worker: str, gpus: int) -> Claim | None:
    """Take the next queued job for a slot with so many GPUs, by priority and then age; None where there is none."""
    raise NotImplementedError


def fence(session: Session, claim: Claim) -> models.Job:
    """The claim's job, locked until the session ends. Every write of a run starts with this.

    Raises:
        LeaseLost: the job is no longer this claim's.
    """
    raise NotImplementedError


def heartbeat(session: Session, claim: Claim) -> Order:
    """Renew the lease, and hear what to do."""
    raise NotImplementedError


def start(session: Session, claim: Claim) -> None:
    """Note that the trainer runs.

    Raises:
        LeaseLost: the job is no longer this claim's.
    """
    raise NotImplementedError


def finish(session: Session, claim: Claim, outcome: Outcome) -> None:
    """End a claim. Jobs that depend on this one are queued or fail with it.

    Raises:
        LeaseLost: the job is no longer this claim's.
    """
    raise NotImplementedError


def sweep(session: Session) -> Swept:
    """Mend what dead processes left: expired leases, silent workers, missed wake-ups. Safe to run anywhere."""
    raise NotImplementedError
