"""The queue as it should be, in plain Python, without a look at `jobs.lifecycle`: what a test compares it with.

Time is the model's own, in seconds; it only moves in leaps that are long beside how long a test really takes.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from calibrl.schemas import HOUR, Priority

LEASE = 1800.0
CLASSES: tuple[Priority, ...] = ("high", "normal", "low")
FINAL = ("succeeded", "failed", "cancelled")
LOST = ("failed", "cancelled")
LEASED = ("running", "pausing", "cancelling")
TABLE = {
    None: "queued waiting",
    "waiting": "queued paused failed cancelled",
    "queued": "running paused failed cancelled",
    "running": "queued pausing paused cancelling succeeded failed",
    "pausing": "paused cancelling succeeded failed",
    "paused": "queued waiting failed cancelled",
    "cancelling": "cancelled",
    "succeeded": "",
    "failed": "queued waiting",
    "cancelled": "queued waiting",
}


@dataclass
class Project:
    max_gpus: int | None = None
    max_queued: int | None = None
    budget_slot_hours: float | None = None


@dataclass
class Machine:
    """`cards`: who holds each GPU; `clean`: those whose memory is free; `released`: when each of the others was."""

    cpu_slots: int
    gpus: int
    labels: dict[str, str]
    status: str = "online"
    drained: bool = False
    heard: float = 0.0
    cards: dict[int, UUID | None] = field(default_factory=dict)
    clean: set[int] = field(default_factory=set)
    released: dict[int, float] = field(default_factory=dict)

    def would_do(self, job: "Job") -> bool:
        room = self.gpus >= job.gpus if job.gpus else self.cpu_slots > 0
        return room and job.labels.items() <= self.labels.items()


@dataclass
class Job:
    id: UUID
    project: str
    priority: Priority
    machines: int
    gpus: int  # on each machine
    labels: dict[str, str]
    needs: tuple[UUID, ...]
    origin: UUID | None  # the one of them whose checkpoint it starts from
    most_lost: int
    status: str = "queued"
    attempt: int = 0
    lost: int = 0
    workers: tuple[str, ...] = ()  # the main machine first
    expires: float = 0.0
    parts_expire: float = 0.0  # those of the other machines
    preempted: bool = False
    checkpoints: dict[int, Path] = field(default_factory=dict)
    ran: list[tuple[float, float | None]] = field(default_factory=list)  # from when until when, an attempt each

    @property
    def held(self) -> bool:
        return self.status in LEASED

    @property
    def all_gpus(self) -> int:
        return self.machines * self.gpus

    def shape(self) -> tuple[str, int, int, list[tuple[str, str]]]:
        return self.project, self.machines, self.gpus, sorted(self.labels.items())


class Model:
    def __init__(self) -> None:
        self.now = 0.0
        self.jobs: dict[UUID, Job] = {}  # by age
        self.projects = {name: Project() for name in ("default", "a", "b")}
        self.machines = {
            "cpu": Machine(1, 0, {"site": "x"}),
            "two": Machine(0, 2, {"site": "y"}),
            "three": Machine(1, 3, {"site": "x"}),
        }

    # What is to be expected

    def takes(self, machine: Machine) -> bool:
        return machine.status == "online" and self.now - machine.heard < LEASE

    def could_take(self, machine: Machine, job: Job) -> bool:
        """Return True if only current jobs prevent the start. A GPU that stays unclean does not count as usable."""
        cards = machine.cards.items()
        usable = sum(held is not None or n in machine.clean or machine.released[n] == self.now for n, held in cards)
        return self.takes(machine) and machine.would_do(job) and usable >= job.gpus

    def open_jobs(self, project: str) -> int:
        return sum(job.project == project and job.status in ("queued", "waiting") for job in self.jobs.values())

    def gpus_of(self, project: str) -> int:
        return sum(job.all_gpus for job in self.jobs.values() if job.project == project and job.held)

    def cpu_jobs_on(self, name: str) -> int:
        return sum(name in job.workers and not job.gpus for job in self.jobs.values())

    def slot_seconds(self, project: str, since: float) -> float:
        ran = [(job, *span) for job in self.jobs.values() if job.project == project for span in job.ran]
        ends = ((job, begin, self.now if end is None else end) for job, begin, end in ran)
        slots = ((job.machines * max(1, job.gpus), begin, end) for job, begin, end in ends)
        return sum(count * max(0.0, end - max(begin, since)) for count, begin, end in slots)

    def may_start(self, job: Job, name: str, month: float) -> list[str]:
        """Return the reasons why this job cannot start on this machine. `month`: start of the month, in seconds."""
        machine, project = self.machines[name], self.projects[job.project]
        most, budget = project.max_gpus, project.budget_slot_hours
        free = [index for index, holder in machine.cards.items() if holder is None and index in machine.clean]
        rules = {
            "it is not queued": job.status == "queued",
            "the machine takes none": self.takes(machine),
            "its labels": machine.would_do(job),
            "what it needs has not succeeded": all(self.jobs[id].status == "succeeded" for id in job.needs),
            "no GPUs": len(free) >= job.gpus,
            "no CPU slot": job.gpus > 0 or self.cpu_jobs_on(name) < machine.cpu_slots,
            "max_gpus": most is None or not job.gpus or self.gpus_of(job.project) + job.all_gpus <= most,
            "the budget": budget is None or self.slot_seconds(job.project, month) < budget * HOUR,
        }
        return [why for why, holds in rules.items() if not holds]

    def passed_over(self, job: Job, names: Collection[str], month: float) -> list[Job]:
        """Return the jobs before it in the same line that cannot start on other machines either."""
        before = [other for other in self.jobs.values() if self._before(other, job)]
        others = [other for other in self.machines if other not in names]
        return [one for one in before if sum(not self.may_start(one, name, month) for name in others) < one.machines]

    def _before(self, other: Job, job: Job) -> bool:
        """Return True if `other` is before `job` in the same line."""
        same = other.status == "queued" and other.shape() == job.shape() and other is not job
        ids = [*self.jobs]
        rank = (CLASSES.index(other.priority), ids.index(other.id))
        return same and rank < (CLASSES.index(job.priority), ids.index(job.id))

    def order(self, job: Job) -> str:
        if job.status in ("cancelling", "pausing"):
            return {"cancelling": "cancel", "pausing": "pause"}[job.status]
        stops = job.preempted or any(self.machines[name].status == "stopping" for name in job.workers)
        return "stop" if stops else "continue"

    def in_line_again(self, job: Job) -> str | None:
        """The status of a job that is resumed or retried; None where that is refused."""
        statuses = [self.jobs[id].status for id in job.needs]
        if any(status in LOST for status in statuses):
            return None
        return "queued" if all(status == "succeeded" for status in statuses) else "waiting"

    def asked(self, job: Job, action: str) -> str | None:
        """The status that a person's request leads to; None where it is refused."""
        match action:
            case "cancel" if job.status not in (*FINAL, "cancelling"):
                return "cancelling" if job.held else "cancelled"
            case "pause":
                return {"queued": "paused", "waiting": "paused", "running": "pausing"}.get(job.status)
            case "resume" if job.status == "paused":
                return self.in_line_again(job)
            case "retry" if job.status in LOST:
                return self.in_line_again(job)
        return None

    def can_end(self, job: Job) -> bool:
        """Return True if only a person or a missing machine can keep the job from its end."""
        if job.status == "paused" or sum(one.would_do(job) for one in self.machines.values()) < job.machines:
            return False
        return all(self.jobs[id].status in FINAL or self.can_end(self.jobs[id]) for id in job.needs)

    # What happens

    def start(self, job: Job, gpus: Mapping[str, Sequence[int]]) -> None:
        """Start a job on these GPUs of machines, the main machine first."""
        job.workers, job.preempted = tuple(gpus), False
        job.expires = job.parts_expire = self.now + LEASE
        job.attempt += 1
        job.ran.append((self.now, None))
        for name, indices in gpus.items():
            self.machines[name].cards.update(dict.fromkeys(indices, job.id))
        self.set(job, "running")

    def set(self, job: Job, to: str) -> None:
        """Change a status, with all that follows."""
        assert to in TABLE[job.status].split()
        if job.held and to not in LEASED:
            for machine in (self.machines[name] for name in job.workers):
                for index in [index for index, holder in machine.cards.items() if holder == job.id]:
                    machine.cards[index] = None
                    machine.clean.discard(index)
                    machine.released[index] = self.now
            job.workers, job.preempted = (), False
            job.ran[-1] = (job.ran[-1][0], self.now)
        job.status = to
        if to == "succeeded":
            for other in self.jobs.values():
                if other.status == "waiting" and self.in_line_again(other) == "queued":
                    other.status = "queued"
        elif to in LOST:
            for other in self.jobs.values():  # each is younger than what it needs
                if other.status in ("waiting", "paused") and any(self.jobs[id].status in LOST for id in other.needs):
                    other.status = "failed"

    def finish(self, job: Job, outcome: str) -> None:
        if job.status == "cancelling":
            outcome = "cancelled"
        elif job.status == "pausing" and outcome == "queued":
            outcome = "paused"
        self.set(job, outcome)

    def _silent(self, job: Job) -> bool:
        return job.expires < self.now or (job.machines > 1 and job.parts_expire < self.now)

    def sweep(self) -> dict[str, int]:
        """Take jobs from silent workers; return the number of jobs per new status."""
        found = {"queued": 0, "paused": 0, "failed": 0, "cancelled": 0}
        for job in [job for job in self.jobs.values() if job.held and self._silent(job)]:
            to = {"cancelling": "cancelled", "pausing": "paused"}.get(job.status)
            job.lost += job.status != "cancelling"
            to = to or ("failed" if job.lost >= job.most_lost else "queued")
            found[to] += 1
            self.set(job, to)
        return found
