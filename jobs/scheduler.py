"""Which job runs where, and when: a pure function of the queue, the machines and the projects' shares.

Jobs are ranked by priority class, then by their project's recent use of slots in relation to its weight, then by age.
A job that can't start now reserves a machine; what is behind it may start there only if it is done before the
reservation begins (backfill). A slot is a GPU, or the place of a job without one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from jobs.schemas import Priority, WaitReason

UNKNOWN_SECONDS = 600.0  # what a job of unknown length counts for in its project's share


@dataclass(frozen=True)
class QueuedJob:
    """A job that could start. `age` in seconds; `seconds`: how long it is expected to run, None if unknown."""

    id: UUID
    project: str
    user: str
    priority: Priority
    gpus: int
    labels: Mapping[str, str]
    age: float
    seconds: float | None


@dataclass(frozen=True)
class RunningJob:
    """A job that holds `gpus` of a machine, or one of its CPU slots. `seconds_left`: None if unknown."""

    id: UUID
    project: str
    priority: Priority
    worker: str
    gpus: int
    seconds_left: float | None
    leaving: bool  # it has been told to stop, pause or cancel


@dataclass(frozen=True)
class Machine:
    """A machine that takes jobs. What is free is free now: neither held nor being cleaned."""

    name: str
    labels: Mapping[str, str]
    cpu_slots: int
    gpus: int
    free_cpu_slots: int
    free_gpus: int


@dataclass(frozen=True)
class Share:
    """A project's claim to the machines. `recent`: slot-seconds used, decayed; `left`: those of this month's budget."""

    weight: float
    recent: float
    max_gpus: int | None
    left: float | None
    left_by_user: Mapping[str, float]  # only of users who have a budget


@dataclass(frozen=True)
class Placement:
    """Where a queued job stands. `worker` and `starts_in` = 0: it starts there now. `starts_in` None: can't be told."""

    job_id: UUID
    position: int  # from 1
    worker: str | None
    starts_in: float | None
    reason: WaitReason | None
    behind: UUID | None = None  # the job for which what is free is kept, where the reason is RESERVED


def plan(
    queued: Sequence[QueuedJob],
    running: Sequence[RunningJob],
    machines: Sequence[Machine],
    shares: Mapping[str, Share],
    *,
    until_full: bool = False,
) -> list[Placement]:
    """Every queued job's placement, in rank order. `until_full`: stop once nothing more can start now."""
    raise NotImplementedError


def victims(
    job: QueuedJob, running: Sequence[RunningJob], machines: Sequence[Machine]
) -> tuple[str, list[UUID]] | None:
    """The machine and the jobs of a lower class that must give way there for this job to start, as few and as low
    as possible; None where no machine can be freed so."""
    raise NotImplementedError
