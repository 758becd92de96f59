"""The input and the output of the scheduler: jobs, machines, shares of projects, placements; the size of a job.

A slot is a GPU, or the place of a job without one. A job takes as many slots on each of its machines.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from calibrl.schemas import Priority, WaitReason

CLASSES: tuple[Priority, ...] = ("high", "normal", "low")


@dataclass(frozen=True)
class QueuedJob:
    """A job that could start on `machines` machines at once, with `gpus` on each. `age` in seconds. `seconds`: expected
    run time, None if unknown."""

    id: UUID
    project: str
    user: str
    priority: Priority
    gpus: int
    labels: Mapping[str, str]
    age: float
    seconds: float | None
    machines: int = 1

    @property
    def total_gpus(self) -> int:
        return self.machines * self.gpus


@dataclass(frozen=True)
class RunningJob:
    """A job that holds `gpus` of each of its machines, or one CPU slot. `seconds_left`: None if unknown."""

    id: UUID
    project: str
    priority: Priority
    workers: tuple[str, ...]
    gpus: int
    seconds_left: float | None
    leaving: bool  # it was ordered to stop, pause or cancel


@dataclass(frozen=True)
class Machine:
    """A machine that takes jobs. Free slots are free now: neither held nor being cleaned.

    A slot that is neither free nor held by a running job counts as free soon, so `gpus` must not count unusable GPUs.
    """

    name: str
    labels: Mapping[str, str]
    cpu_slots: int
    gpus: int
    free_cpu_slots: int
    free_gpus: int


@dataclass(frozen=True)
class Share:
    """Share of a project. `recent`: used slot-seconds, decayed; `budget_left`: slot-seconds that remain this month."""

    weight: float
    recent: float
    max_gpus: int | None
    budget_left: float | None
    left_by_user: Mapping[str, float]  # only users with a budget


@dataclass(frozen=True)
class Placement:
    """Place of a queued job. `workers` with `starts_in` = 0: the job starts on these machines now; the first one is its
    main machine. `starts_in` None: cannot be estimated."""

    job_id: UUID
    position: int  # from 1
    workers: tuple[str, ...]
    starts_in: float | None
    reason: WaitReason | None
    behind: UUID | None = None  # for RESERVED: the job that has reserved the free slots


def slots_of(job: QueuedJob | RunningJob) -> int:
    """Return the slots of a job on each of its machines."""
    return max(1, job.gpus)


def rank_of(job: QueuedJob | RunningJob) -> int:
    """Return the place of a job's class, the highest class first."""
    return CLASSES.index(job.priority)


def fits(gpus: int, labels: Mapping[str, str], machine: Machine) -> bool:
    """Return True if a machine without any job could run a part of a job of this size."""
    has_slots = machine.gpus >= gpus if gpus else machine.cpu_slots > 0
    return has_slots and all(machine.labels.get(key) == value for key, value in labels.items())
