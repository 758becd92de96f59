"""The scheduler: which job runs where and when, as a pure function of the queue, the machines and the shares of
projects.

Rank: by priority class, then by the project's recent use of slots relative to its weight, then by age. A job starts on
all its machines at once. A job that cannot start now reserves its machines for the earliest time when all of them have
room. A job of lower rank can start there only if it ends before the reservation begins (backfill).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from math import inf

from calibrl.schemas import WaitReason
from jobs.scheduling.situation import CLASSES, Machine, Placement, QueuedJob, RunningJob, Share, fits, slots_of
from jobs.scheduling.timeline import Timeline, earliest_together

UNKNOWN_SECONDS = 600.0  # use that a job of unknown length adds to its project
SOON_SECONDS = 30.0  # until a stopping job has ended, and a released GPU is clean
OVERDUE_SECONDS = 1.0  # remaining time of a job past its expected end; also the minimum run time
MAX_RESERVATIONS = 500  # jobs that reserve a start: each costs a search over all timelines

Labels = frozenset[tuple[str, str]]
Shape = tuple[int, int, Labels]  # resources of a job: machines, GPUs on each, labels
NO_LABELS: Labels = frozenset()


def plan(
    queued: Sequence[QueuedJob],
    running: Sequence[RunningJob],
    machines: Sequence[Machine],
    shares: Mapping[str, Share],
    *,
    until_full: bool = False,
) -> list[Placement]:
    """Return the placement of every queued job in rank order.

    A project that is missing in `shares` has weight 1, no use and no limits. After the first MOST_BLOCKED jobs that
    must wait, further jobs get no estimate and no reservation. They still start where they delay no reservation.

    Args:
        until_full: stop once no further job can start now.
    """
    board = _Board(running, machines, shares)
    demand = _Demand(queued, board) if until_full else None
    ranked = _ranked(queued, board.projects)
    placements: list[Placement] = []
    while (demand is None or demand.can_be_met()) and (job := next(ranked, None)):
        placements.append(board.place(job, len(placements) + 1))
        if demand:
            demand.remove(job)
    return placements


class _Project:
    """Use and limits of a project at the present point of the plan."""

    def __init__(self, share: Share) -> None:
        self.share = share
        self.used = share.recent
        self.gpus = 0  # held, or about to start
        self.reserved_gpus = 0

    @property
    def load(self) -> float:
        return self.used / self.share.weight

    def hold_back(self, job: QueuedJob) -> WaitReason | None:
        """Return why a job must not start or reserve now, or None."""
        if self._exceeds(self.gpus, job):
            return WaitReason.PROJECT_LIMIT
        if (self.share.budget_left is not None and self.share.budget_left <= 0) or self.share.left_by_user.get(
            job.user, inf
        ) <= 0:
            return WaitReason.BUDGET
        return None

    def keep_for(self, job: QueuedJob) -> None:
        """Make jobs of lower rank wait for a job at the limit; otherwise small jobs would delay a large one without
        end."""
        if not self._exceeds(0, job):
            self.gpus += job.total_gpus

    def may_reserve(self, job: QueuedJob) -> bool:
        """Return True if the project may reserve slots for this job: it must not reserve more than it can run at the
        same time."""
        return not self._exceeds(self.gpus + self.reserved_gpus, job)

    def _exceeds(self, gpus: int, job: QueuedJob) -> bool:
        limit = self.share.max_gpus
        return limit is not None and job.gpus > 0 and gpus + job.total_gpus > limit


class _Board:
    """Machines and projects at the present point of the plan. Slots that a job takes are never given back."""

    def __init__(self, running: Sequence[RunningJob], machines: Sequence[Machine], shares: Mapping[str, Share]) -> None:
        self.projects: defaultdict[str, _Project] = defaultdict(lambda: _Project(Share(1.0, 0.0, None, None, {})))
        self.projects.update((name, _Project(share)) for name, share in shares.items())
        self._machines = sorted(machines, key=lambda one: (one.gpus, one.cpu_slots, one.name))
        self._gpus = {one.name: Timeline(one.name, one.free_gpus) for one in machines}
        self._cpu_slots = {one.name: Timeline(one.name, one.free_cpu_slots) for one in machines}
        self._fitting: dict[Shape, list[Timeline]] = {}
        self._free: dict[Shape, list[Timeline]] = {}
        self._blocked = 0
        self._run(running)

    def _run(self, running: Sequence[RunningJob]) -> None:
        unseen = {(one.name, True): one.gpus - one.free_gpus for one in self._machines}
        unseen |= {(one.name, False): one.cpu_slots - one.free_cpu_slots for one in self._machines}
        for job in running:
            left = _seconds_left(job)
            project = self.projects[job.project]
            project.used += len(job.workers) * slots_of(job) * (UNKNOWN_SECONDS if left is None else left)
            project.gpus += len(job.workers) * job.gpus
            for name in job.workers:
                if timeline := self._timelines(job.gpus).get(name):
                    timeline.jobs += 1
                    unseen[name, job.gpus > 0] -= slots_of(job)
                    if left is not None:
                        timeline.release(slots_of(job), max(left, OVERDUE_SECONDS))
        for (name, on_gpus), slots in unseen.items():
            if slots > 0:
                self._timelines(on_gpus)[name].release(slots, SOON_SECONDS)

    def _timelines(self, gpus: int) -> dict[str, Timeline]:
        return self._gpus if gpus else self._cpu_slots

    def fitting(self, shape: Shape) -> list[Timeline]:
        """Return the timelines of the machines that are large enough and have the labels, small machines first; none if
        there are fewer than the job needs.

        A job takes the first of those with the earliest start. The order must not depend on the free slots: a job of
        lower rank that starts changes them, and a reservation that moved to another machine could delay the next.
        """
        if shape not in self._fitting:
            machines, gpus, labels = shape
            timelines = self._timelines(gpus)
            found = [timelines[one.name] for one in self._machines if fits(gpus, dict(labels), one)]
            self._fitting[shape] = found if len(found) >= machines else []
        return self._fitting[shape]

    def free(self, shape: Shape) -> list[Timeline]:
        """Return those of `fitting` with enough free slots now, reserved or not."""
        slots = max(1, shape[1])
        timelines = [one for one in self._free.get(shape, self.fitting(shape)) if one.free[0] >= slots]
        self._free[shape] = timelines
        return timelines

    def place(self, job: QueuedJob, position: int) -> Placement:
        """Place a job: start it, reserve a start, or return why neither is possible."""
        project = self.projects[job.project]
        if reason := project.hold_back(job):
            if reason is WaitReason.PROJECT_LIMIT and self.fitting(_shape(job)):
                project.keep_for(job)
            return Placement(job.id, position, (), None, reason)
        shape, slots, seconds = _shape(job), slots_of(job), _seconds(job)
        if not self.fitting(shape):
            return Placement(job.id, position, (), None, WaitReason.NO_MACHINE)
        free = self.free(shape)
        ready = [one for one in free if one.window(slots) >= seconds]
        if len(ready) >= job.machines:
            chosen = ready[: job.machines]
            for timeline in chosen:
                timeline.hold(slots, seconds)
            project.gpus += job.total_gpus
            project.used += _use(job)
            return Placement(job.id, position, tuple(one.machine for one in chosen), 0.0, None)
        if not project.may_reserve(job):
            return Placement(job.id, position, (), None, WaitReason.PROJECT_LIMIT)
        project.used += _use(job)
        project.reserved_gpus += job.total_gpus
        reason, behind = WaitReason.BUSY, None
        if len(free) >= job.machines:
            reason, behind = WaitReason.RESERVED, next(one for one in free if one not in ready).kept_for(slots)
        return Placement(job.id, position, (), self._reserve(job), reason, behind)

    def _reserve(self, job: QueuedJob) -> float | None:
        """Reserve and return the earliest start. If it is unknown, reserve the whole machines that are nearest to
        having room."""
        self._blocked += 1
        if self._blocked > MAX_RESERVATIONS:
            return None
        timelines, slots, seconds = self.fitting(_shape(job)), slots_of(job), _seconds(job)
        if found := earliest_together(timelines, job.machines, slots, seconds):
            start, places = found
            for timeline in places:
                timeline.reserve(job.id, slots, start, seconds)
            return start
        unclosed = [one for one in timelines if not one.closed]
        for timeline in sorted(unclosed, key=lambda one: (-one.free[0], one.jobs))[: job.machines]:
            timeline.close(job.id)
        return None


class _Demand:
    """Jobs that could still start now. Free slots only shrink while a plan is made, so a shape of job that does not
    fit once is not checked again."""

    def __init__(self, queued: Sequence[QueuedJob], board: _Board) -> None:
        free: dict[Shape, list[Timeline]] = {}
        waiting: defaultdict[Shape, list[tuple[float, int]]] = defaultdict(list)
        for job in queued:
            shape = _shape(job)
            if shape not in free:
                free[shape] = [*board.free(shape)]
            if len(free[shape]) >= job.machines and board.projects[job.project].hold_back(job) is None:
                waiting[shape].append((_seconds(job), job.id.int))
        for jobs in waiting.values():
            heapify(jobs)  # shortest first: if it does not fit, no other does
        self._open = [(shape[0], max(1, shape[1]), jobs, free[shape]) for shape, jobs in waiting.items()]
        self._placed: set[int] = set()

    def can_be_met(self) -> bool:
        """Return True if an unplaced job could still start now."""
        while self._open:
            machines, slots, jobs, timelines = self._open[-1]
            while jobs and jobs[0][1] in self._placed:
                heappop(jobs)
            while jobs and len(timelines) >= machines:
                timelines[-machines:] = ready = [
                    one for one in timelines[-machines:] if one.window(slots) >= jobs[0][0]
                ]
                if len(ready) == machines:
                    return True
            self._open.pop()
        return False

    def remove(self, job: QueuedJob) -> None:
        """Record that a job was placed."""
        self._placed.add(job.id.int)


def _ranked(queued: Sequence[QueuedJob], projects: Mapping[str, _Project]) -> Iterator[QueuedJob]:
    """Yield the jobs in rank order. The caller adds the use of each job to its project before it takes the next."""
    for priority in CLASSES:
        lines: defaultdict[str, list[QueuedJob]] = defaultdict(list)
        for job in queued:
            if job.priority == priority:
                lines[job.project].append(job)
        for line in lines.values():
            line.sort(key=_seniority, reverse=True)
        heads = [(projects[name].load, _seniority(line[-1]), name) for name, line in lines.items()]
        heapify(heads)
        while heads:
            _, _, name = heappop(heads)
            yield lines[name].pop()
            if line := lines[name]:
                heappush(heads, (projects[name].load, _seniority(line[-1]), name))


def _shape(job: QueuedJob) -> Shape:
    return job.machines, job.gpus, frozenset(job.labels.items()) if job.labels else NO_LABELS


def _seniority(job: QueuedJob) -> tuple[float, int]:
    return -job.age, job.id.int


def _seconds(job: QueuedJob) -> float:
    """Return the seconds for which a job holds slots: at least a moment, otherwise it would hold nothing."""
    return inf if job.seconds is None else max(job.seconds, OVERDUE_SECONDS)


def _use(job: QueuedJob) -> float:
    return job.machines * slots_of(job) * (UNKNOWN_SECONDS if job.seconds is None else job.seconds)


def _seconds_left(job: RunningJob) -> float | None:
    if job.leaving:
        return SOON_SECONDS if job.seconds_left is None else min(job.seconds_left, SOON_SECONDS)
    return job.seconds_left
