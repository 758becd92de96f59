"""Queues for tests of the scheduler, made by hand, and what a plan says of them."""

from collections.abc import Mapping
from uuid import UUID

from calibrl.schemas import Priority, WaitReason
from jobs.scheduling.situation import Machine, Placement, QueuedJob, RunningJob, Share

NO_MACHINE, BUSY, RESERVED = WaitReason.NO_MACHINE, WaitReason.BUSY, WaitReason.RESERVED
PROJECT_LIMIT, BUDGET = WaitReason.PROJECT_LIMIT, WaitReason.BUDGET


def queued(
    number: int,
    gpus: int = 1,
    seconds: float | None = None,
    *,
    project: str = "p",
    user: str = "u",
    priority: Priority = "normal",
    labels: Mapping[str, str] | None = None,
    age: float | None = None,
    machines: int = 1,
) -> QueuedJob:
    """A job; the lower its number, the older it is."""
    age = 1000.0 - number if age is None else age
    return QueuedJob(UUID(int=number), project, user, priority, gpus, labels or {}, age, seconds, machines)


def running(
    number: int, workers: str, gpus: int = 1, left: float | None = None, *, project: str = "q", leaving: bool = False
) -> RunningJob:
    """A job on the machines that `workers` names, each with one letter."""
    return RunningJob(UUID(int=number), project, "normal", tuple(workers), gpus, left, leaving)


def machine(name: str, gpus: int, free: int, *, cpus: int = 0, free_cpus: int = 0, **labels: str) -> Machine:
    return Machine(name, labels, cpus, gpus, free_cpus, free)


def share(
    weight: float = 1.0,
    recent: float = 0.0,
    max_gpus: int | None = None,
    budget_left: float | None = None,
    left_by_user: Mapping[str, float] | None = None,
) -> Share:
    return Share(weight, recent, max_gpus, budget_left, left_by_user or {})


def by_number(placements: list[Placement]) -> dict[int, Placement]:
    assert [place.position for place in placements] == [*range(1, len(placements) + 1)]
    return {place.job_id.int: place for place in placements}


def order(placements: list[Placement]) -> list[int]:
    return [place.job_id.int for place in placements]


def starts(placements: list[Placement]) -> dict[int, str]:
    """The jobs that start, with the letters of their machines."""
    return {place.job_id.int: "".join(place.workers) for place in placements if place.starts_in == 0}
