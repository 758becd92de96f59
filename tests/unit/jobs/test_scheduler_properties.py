"""The scheduler on queues made by chance: what must hold of every plan, and of a cluster that follows it for hours."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from random import Random
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from calibrl.schemas import WaitReason
from jobs.scheduling.preemption import victims
from jobs.scheduling.scheduler import plan
from jobs.scheduling.situation import CLASSES, Machine, Placement, QueuedJob, RunningJob, Share

unhurried = settings(deadline=None)  # the machine may be busy with other things
HELD = (WaitReason.PROJECT_LIMIT, WaitReason.BUDGET, WaitReason.NO_MACHINE)
PROJECTS = ("a", "b", "c")
labels = st.sampled_from([{}, {"kind": "x"}, {"kind": "y"}, {"kind": "x", "room": "1"}])
lengths = st.none() | st.sampled_from([0.0, 5.0, 10.0, 20.0, 50.0, 100.0])
Situation = tuple[list[QueuedJob], list[RunningJob], list[Machine], dict[str, Share]]


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    """A few machines with jobs on them, some slots being cleaned, and a queue."""
    machines: list[Machine] = []
    running: list[RunningJob] = []
    ids = iter(range(1000, 2000))

    def run(worker: str, gpus: int) -> None:
        priority, project = draw(st.sampled_from(CLASSES)), draw(st.sampled_from(PROJECTS))
        running.append(
            RunningJob(UUID(int=next(ids)), project, priority, (worker,), gpus, draw(lengths), draw(st.booleans()))
        )

    for name in "mno"[: draw(st.integers(0, 3))]:
        cpus, gpus = draw(st.integers(0, 2)), draw(st.integers(0, 4))
        free_cpus, free_gpus = draw(st.integers(0, cpus)), draw(st.integers(0, gpus))
        machines.append(Machine(name, draw(labels), cpus, gpus, free_cpus, free_gpus))
        for _ in range(draw(st.integers(0, cpus - free_cpus))):
            run(name, 0)
        left = gpus - free_gpus
        while left and (size := draw(st.integers(0, left))):
            run(name, size)
            left -= size
    if draw(st.booleans()):
        running = joined(running)
    queued = [
        QueuedJob(
            UUID(int=number),
            draw(st.sampled_from(PROJECTS)),
            draw(st.sampled_from("uv")),
            draw(st.sampled_from(CLASSES)),
            draw(st.sampled_from([0, 1, 1, 2, 4])),
            draw(labels),
            draw(st.sampled_from([1.0, 2.0, 3.0])),
            draw(lengths),
            draw(st.sampled_from([1, 1, 1, 2, 3])),
        )
        for number in range(1, 1 + draw(st.integers(0, 10)))
    ]
    some = st.none() | st.integers(0, 4)
    shares = {
        name: Share(
            draw(st.sampled_from([0.5, 1.0, 3.0])), draw(st.sampled_from([0.0, 30.0])), draw(some), draw(some), {}
        )
        for name in draw(st.sets(st.sampled_from(PROJECTS)))
    }
    return draw(st.permutations(queued)), running, machines, shares


def joined(running: Sequence[RunningJob]) -> list[RunningJob]:
    """These jobs, but each that can be joined with the one before it is one job on several machines with it."""
    found: list[RunningJob] = []
    for job in running:
        if found and found[-1].gpus == job.gpus and not set(found[-1].workers) & set(job.workers):
            found[-1] = replace(found[-1], workers=(*found[-1].workers, *job.workers))
        else:
            found.append(job)
    return found


def started(placements: Sequence[Placement]) -> list[Placement]:
    return [place for place in placements if place.starts_in == 0]


def fits(job: QueuedJob, machine: Machine) -> bool:
    enough = machine.gpus >= job.gpus if job.gpus else machine.cpu_slots > 0
    return enough and job.labels.items() <= machine.labels.items()


@given(situations())
@unhurried
def test_each_job_is_placed_once_in_any_order_of_the_queue(situation: Situation) -> None:
    queued, running, machines, shares = situation
    placements = plan(queued, running, machines, shares)
    assert {place.job_id for place in placements} == {job.id for job in queued}
    assert [place.position for place in placements] == [*range(1, len(queued) + 1)]
    ranks = {job.id: CLASSES.index(job.priority) for job in queued}
    assert [ranks[place.job_id] for place in placements] == sorted(ranks.values())
    assert plan(queued[::-1], running, machines[::-1], shares) == placements
    for place in placements:
        assert (place.starts_in == 0) == (place.workers != ()) == (place.reason is None)
        assert (place.behind is not None) == (place.reason is WaitReason.RESERVED)
        assert place.reason not in HELD or place.starts_in is None


@given(situations())
@unhurried
def test_started_jobs_have_room_labels_and_quota(situation: Situation) -> None:
    queued, running, machines, shares = situation
    jobs, by_name = {job.id: job for job in queued}, {machine.name: machine for machine in machines}
    gpus: Counter[str] = Counter()
    cpus: Counter[str] = Counter()
    of_project: Counter[str] = Counter()
    for one in running:
        of_project[one.project] += len(one.workers) * one.gpus
    for place in started(plan(queued, running, machines, shares)):
        job = jobs[place.job_id]
        assert len(set(place.workers)) == len(place.workers) == job.machines
        for name in place.workers:
            assert fits(job, by_name[name])
            gpus[name] += job.gpus
            cpus[name] += job.gpus == 0
        of_project[job.project] += job.machines * job.gpus
        share = shares.get(job.project)
        if share is not None:
            assert job.gpus == 0 or share.max_gpus is None or of_project[job.project] <= share.max_gpus
            assert share.budget_left is None or share.budget_left > 0
    assert all(gpus[one.name] <= one.free_gpus and cpus[one.name] <= one.free_cpu_slots for one in machines)


@given(situations())
@unhurried
def test_no_job_waits_for_usable_slots_that_a_later_job_takes(situation: Situation) -> None:
    queued, running, machines, shares = situation
    jobs, by_name = {job.id: job for job in queued}, {machine.name: machine for machine in machines}
    free = {(one.name, False): one.free_cpu_slots for one in machines}
    free |= {(one.name, True): one.free_gpus for one in machines}
    waiting: list[QueuedJob] = []
    ahead: set[UUID] = set()
    for place in plan(queued, running, machines, shares):
        job = jobs[place.job_id]
        if place.workers:
            for other in waiting:  # as large, as long, allowed here, and before it in line
                assert not (
                    all(fits(other, by_name[name]) for name in place.workers)
                    and other.machines <= job.machines
                    and (other.gpus > 0) == (job.gpus > 0)
                    and other.gpus <= job.gpus
                    and (inf if other.seconds is None else other.seconds)
                    <= (inf if job.seconds is None else job.seconds)
                )
            for name in place.workers:
                free[name, job.gpus > 0] -= max(1, job.gpus)
        elif place.reason not in HELD:
            room = sum(fits(job, one) and free[one.name, job.gpus > 0] >= max(1, job.gpus) for one in machines)
            assert (room >= job.machines) == (place.reason is WaitReason.RESERVED)
            assert place.behind is None or place.behind in ahead
            waiting.append(job)
            ahead.add(job.id)


@given(situations(), st.data())
@unhurried
def test_a_job_less_changes_nothing_for_those_before_it(situation: Situation, data: st.DataObject) -> None:
    queued, running, machines, shares = situation
    placements = plan(queued, running, machines, shares)
    if placements:
        removed = data.draw(st.integers(0, len(placements) - 1))
        without = [job for job in queued if job.id != placements[removed].job_id]
        assert plan(without, running, machines, shares)[:removed] == placements[:removed]


@given(situations())
@unhurried
def test_until_full_leaves_out_only_those_that_can_not_start(situation: Situation) -> None:
    everything = plan(*situation)
    some = plan(*situation, until_full=True)
    assert some == everything[: len(some)]
    assert not started(everything[len(some) :])


def slots_like(one: RunningJob, job: QueuedJob) -> int:
    """The slots that a running job has on a machine of the kind that the other one needs."""
    return max(1, one.gpus) if (one.gpus > 0) == (job.gpus > 0) else 0


@given(situations())
@unhurried
def test_preempting_the_victims_frees_enough_slots(situation: Situation) -> None:
    queued, running, machines, _ = situation
    by_id, by_name = {one.id: one for one in running}, {machine.name: machine for machine in machines}
    for job in queued:
        found = victims(job, running, machines)
        if found is None:
            continue
        places, chosen = [by_name[name] for name in found[0]], [by_id[id] for id in found[1]]
        assert len({place.name for place in places}) == job.machines
        assert all(fits(job, place) for place in places)
        assert all(CLASSES.index(one.priority) > CLASSES.index(job.priority) for one in chosen)
        assert not any(one.leaving for one in chosen)

        def enough(gone: Sequence[RunningJob], job: QueuedJob = job, places: Sequence[Machine] = places) -> bool:
            staying = [one for one in running if not one.leaving and one not in gone]
            held = Counter(name for one in staying for name in one.workers * slots_like(one, job))
            return all(held[one.name] + max(1, job.gpus) <= (one.gpus if job.gpus else one.cpu_slots) for one in places)

        assert enough(chosen)
        for one in chosen:  # not one too many
            assert not enough([other for other in chosen if other is not one])


class Cluster:
    """Simulates machines that follow the plan in simulated time. Jobs last as long as expected."""

    def __init__(self, *machines: Machine) -> None:
        self.machines = {machine.name: machine for machine in machines}
        self.now = 0.0
        self.queue: list[tuple[float, QueuedJob]] = []  # with the time of submission
        self.running: dict[UUID, tuple[float, RunningJob]] = {}  # with the time of its end

    def submit(self, job: QueuedJob) -> None:
        self.queue.append((self.now, job))

    def advance(self, to: float) -> None:
        self.now = to
        for end, job in [*self.running.values()]:
            if end <= to:
                del self.running[job.id]
                self._take(job.workers, -job.gpus)

    def plan(self, shares: dict[str, Share], *, until_full: bool = False) -> list[Placement]:
        queued = [replace(job, age=self.now - since) for since, job in self.queue]
        running = [replace(job, seconds_left=end - self.now) for end, job in self.running.values()]
        return plan(queued, running, [*self.machines.values()], shares, until_full=until_full)

    def start(self, placements: Sequence[Placement]) -> list[QueuedJob]:
        jobs = {job.id: job for _, job in self.queue}
        begun = [(jobs[place.job_id], place.workers) for place in started(placements)]
        for job, workers in begun:
            assert job.seconds is not None
            self._take(workers, job.gpus)
            run = RunningJob(job.id, job.project, job.priority, workers, job.gpus, None, False)
            self.running[job.id] = self.now + job.seconds, run
        gone = {job.id for job, _ in begun}
        self.queue = [(since, job) for since, job in self.queue if job.id not in gone]
        return [job for job, _ in begun]

    def _take(self, workers: tuple[str, ...], gpus: int) -> None:
        for name in workers:
            machine = self.machines[name]
            self.machines[name] = replace(machine, free_gpus=machine.free_gpus - gpus)


def gpu_job(number: int, project: str, gpus: int, seconds: float, machines: int = 1) -> QueuedJob:
    return QueuedJob(UUID(int=number), project, "u", "normal", gpus, {}, 0.0, seconds, machines)


@pytest.mark.parametrize("width", [1, 2])
@given(st.integers(0, 2**32))
@example(37962)  # the choice of a machine by its free slots delayed the big job here
@settings(unhurried, max_examples=15)
def test_small_jobs_that_keep_coming_do_not_starve_a_big_one(width: int, seed: int) -> None:
    """It starts at its first forecast or earlier; jobs that end by then use the slots that are free until then."""
    random = Random(seed)
    cluster = Cluster(*(Machine(name, {}, 0, 4, 0, 4) for name in "ab"))
    shares: dict[str, Share] = {}
    numbers = iter(range(1, 10_000))
    big = gpu_job(10_000, "p", 4, 50.0, width)
    forecast: float | None = None

    def small() -> int:
        return 1 if width == 1 else random.choice([1, 1, 2])

    for second in range(400):
        cluster.advance(float(second))
        while len(cluster.queue) < 6:
            cluster.submit(gpu_job(next(numbers), "p", random.choice([1, 1, 2]), float(random.randint(5, 60)), small()))
        if second == 30:
            cluster.submit(big)
        placements = cluster.plan(shares)
        for place in placements:
            if place.job_id == big.id and forecast is None:
                assert place.starts_in is not None
                forecast = cluster.now + place.starts_in
        if big in cluster.start(placements):
            assert forecast is not None and cluster.now <= forecast
            return
    raise AssertionError("the big job never started")


def test_projects_get_shares_by_their_weights() -> None:
    """8 slots, 5 projects that always want more: after three half-lives each had its part, within a tenth."""
    weights = {"a": 1.0, "b": 1.0, "c": 2.0, "d": 4.0, "e": 8.0}
    half_life, length = 600.0, 10.0
    cluster = Cluster(Machine("m", {}, 0, 8, 0, 8))
    recent = dict.fromkeys(weights, 0.0)
    used: defaultdict[str, float] = defaultdict(float)
    numbers = iter(range(1, 100_000))
    for second in range(3 * int(half_life)):
        cluster.advance(float(second))
        for project in weights:
            waiting = sum(job.project == project for _, job in cluster.queue)
            for _ in range(9 - waiting):
                cluster.submit(gpu_job(next(numbers), project, 1, length))
        shares = {name: Share(weight, recent[name], None, None, {}) for name, weight in weights.items()}
        cluster.start(cluster.plan(shares, until_full=True))
        recent = {name: one * 0.5 ** (1 / half_life) for name, one in recent.items()}
        for _, job in cluster.running.values():
            recent[job.project] += job.gpus
            used[job.project] += job.gpus
    total = 8 * 3 * half_life
    assert sum(used.values()) == total  # nothing idle while jobs wait
    for project, weight in weights.items():
        fair = total * weight / sum(weights.values())
        assert abs(used[project] - fair) <= 0.1 * fair, (project, used[project], fair)
