"""A round: jobs in every state, one fault; every job is then run to its end and checked."""

import random
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from calibrl.schemas import JobStatus, Reason
from jobs import lifecycle, models
from jobs.db import IDLE_SECONDS
from jobs.repository import metrics
from tests.chaos import disk, orders, pids, verify
from tests.chaos.cells import IDLE, State, applies
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.held_jobs import HeldJobs, Subject
from tests.chaos.machine import Machine
from tests.chaos.reference_runs import ReferenceRuns
from tests.chaos.scene import Scene
from tests.chaos.stack import ChaosStack
from tests.chaos.verify import Found
from tests.support.waiting import LIMIT_SECONDS

LEASES = 2  # lease periods within which a job whose worker is gone must be claimed again
RUNNING = (State.BEFORE, State.AFTER, State.SAVING, State.FINISHING)
UNFELT = [fault.name for fault in FAULTS if fault.reach == "all"] + [
    "clock jumps"
]  # faults during which a run continues


@dataclass
class Hit:
    """A fault on one job: its effect, and the times until the job was claimed again and reported a new step."""

    fault: str
    state: State
    happened: str
    claimed: float | None = None
    stepped: float | None = None


@dataclass
class Result:
    """Result of a round; `strokes`: the number of faults."""

    strokes: int = 0
    hits: list[Hit] = field(default_factory=list)
    found: Found = field(default_factory=Found)


class Round:
    """A round. `aim`: the state that the fault must hit; it can hit others too."""

    def __init__(
        self, stack: ChaosStack, fault: Fault, aim: State, rng: random.Random, references: ReferenceRuns
    ) -> None:
        self._stack, self._fault, self._aim, self._rng = stack, fault, aim, rng
        self._references = references
        self._aims = self._choose_aims()
        self._held = HeldJobs(rng, self._aims if fault.name == "disk full" else ())
        self._result = Result()

    def play(self) -> Result:
        """Run the whole round. An error in the round is a finding; the next round starts clean."""
        try:
            self._prepare()
            self._held.set_up()
            scene = self._strike()
            self._drive(scene)
            self._check(scene)
        except Exception as error:  # outermost handler: one broken round must not end the others
            self._complain(f"the round broke: {type(error).__name__}: {error}", lost=1)
            self._result.found.words.append(traceback.format_exc())
            self._clean_up()
        finally:
            self._held.release()
            self._held.clear()
            self._restore()
        return self._result

    def _choose_aims(self) -> list[State]:
        others = [state for state in State if applies(self._fault.name, state) and state is not self._aim]
        return [self._aim, *self._rng.sample(others, min(2, len(others)))]

    def _prepare(self) -> None:
        if self._fault.name == "clock jumps":
            self._restart_machines(Machine.start_with_clock)
            self._stack.await_slots()

    def _restore(self) -> None:
        if self._fault.name == "clock jumps":
            self._restart_machines(Machine.start)
        for machine in self._stack.machines:
            if not machine.alive():
                self._complain(f"worker {machine.name} has ended by itself", lost=1)
                machine.start()
        self._stack.await_slots()

    def _restart_machines(self, start: Callable[[Machine], None]) -> None:
        for machine in self._stack.machines:
            machine.stop()
            start(machine)

    def _victims(self) -> list[Subject]:
        subjects = self._held.subjects
        if self._fault.reach == "job":
            return [subjects[state] for state in self._aims]
        held = [subject for subject in subjects.values() if applies(self._fault.name, subject.state)]
        if self._fault.reach == "all":
            return held
        return [subject for subject in held if subject.worker == subjects[self._aim].worker]

    def _strike(self) -> Scene:
        scene = Scene(self._stack, self._held, self._rng, self._victims())
        assert scene.victims, "the machine to be hit holds no job"
        self._result.strokes = len(scene.victims) if self._fault.reach == "job" else 1
        self._fault.strike(scene)
        for note in scene.notes:
            self._complain(note, left=int("still runs" in note), lost=int("still runs" not in note))
        return scene

    def _drive(self, scene: Scene) -> None:
        """Resume and retry jobs, like a user, until every job has ended."""
        deadline = time.monotonic() + LIMIT_SECONDS
        waiting = dict(self._held.subjects)
        while waiting and time.monotonic() < deadline:
            for state, subject in list(waiting.items()):
                job = orders.job(subject.id)
                if job.status is JobStatus.PAUSED:
                    orders.ordered(lifecycle.resume, subject.id)
                elif job.status is JobStatus.FAILED and self._may_retry(scene, subject, job):
                    orders.ordered(lifecycle.retry, subject.id)  # refused while one of its dependencies has failed
                elif job.status.final:
                    del waiting[state]
            time.sleep(0.05)

    def _may_retry(self, scene: Scene, subject: Subject, job: models.Job) -> bool:
        if job.reason is Reason.DEPENDENCY_FAILED:
            return self._wanted(scene, self._held.subjects[State.BEFORE]) == {JobStatus.SUCCEEDED}
        expected = {"trainer killed": Reason.CRASHED, "disk full": Reason.DISK_FULL}.get(self._fault.name)
        return subject in scene.victims and job.reason is expected

    def _wanted(self, scene: Scene, subject: Subject) -> set[JobStatus]:
        """Return the permitted final statuses of a job."""
        if subject.state is State.CANCELLING:
            return {JobStatus.CANCELLED}
        if self._fault.name == "cancelled":
            if subject.state is State.WAITING and State.BEFORE in scene.accepted:
                return {JobStatus.CANCELLED if State.WAITING in scene.accepted else JobStatus.FAILED}
            if subject.state in scene.accepted:
                late = {JobStatus.SUCCEEDED} if subject.state is State.FINISHING else set()
                return {JobStatus.CANCELLED} | late
        return {JobStatus.SUCCEEDED}

    def _check(self, scene: Scene) -> None:
        for subject in self._held.subjects.values():
            job = orders.job(subject.id)
            allowed = self._wanted(scene, subject)
            wanted = job.status if job.status in allowed else min(allowed)
            found = verify.check_job(subject.id, wanted, self._references)
            self._check_way(scene, subject, job, found)
            found.words = [f"the job that was {subject.state} ({subject.id}): {words}" for words in found.words]
            self._take(found)
        eventually_gone(self._stack)
        self._take(verify.check_stack(self._stack.data_dir))

    def _check_way(self, scene: Scene, subject: Subject, job: models.Job, found: Found) -> None:
        """Check the path of a job through its statuses, not only its end."""
        hit, way = subject in scene.victims, way_since(subject, scene.struck)
        ordered = self._fault.name == "paused" and subject.state in scene.accepted
        paused = subject.state is State.PAUSING or (ordered and subject.state not in (State.SAVING, State.FINISHING))
        if paused and job.status is JobStatus.SUCCEEDED and not any(w.startswith(("paused", "failed")) for w in way):
            found.words.append(f"its pause was lost: {' > '.join(way)}")
            found.broken += 1
        again = subject.state in (*IDLE, State.PAUSING)  # resumed, or claimed after the fault
        if (not hit or self._fault.name in UNFELT) and job.attempt > subject.attempt + again:
            found.words.append(f"restarted without need: {job.attempt} attempts; {events_text(subject)}")
            found.broken += 1
        if hit:
            self._measure(scene, subject, way, found)

    def _measure(self, scene: Scene, subject: Subject, way: list[str], found: Found) -> None:
        hit = Hit(self._fault.name, subject.state, " > ".join(way) or "nothing: it had ended before")
        times = [event.ts.timestamp() for event in orders.history(subject.id) if event.type == "claimed"]
        hit.claimed = next((ts - scene.struck for ts in times if ts > scene.struck), None)
        must = self._fault.loses and subject.state in RUNNING
        limit = LEASES * self._stack.lease_seconds + (IDLE_SECONDS if self._fault.holds else 0)
        if must and (hit.claimed is None or hit.claimed > limit):
            took = "never" if hit.claimed is None else f"after {hit.claimed:.1f} s"
            found.words.append(f"claimed again {took}, not within {limit:.0f} s; {events_text(subject)}")
            found.broken += 1
        if not must:
            hit.claimed = None
        if self._fault.name != "clock jumps":
            hit.stepped = first_step(subject.id, scene.struck)
        self._result.hits.append(hit)

    def _clean_up(self) -> None:
        self._held.release()
        for machine in self._stack.machines:
            machine.thaw()
            if machine.cable:
                machine.cable.join()
        for subject in self._held.subjects.values():
            if subject.on_small_disk:
                disk.free(subject.folder)
            orders.ordered(lifecycle.cancel, subject.id)
        eventually_gone(self._stack)

    def _complain(self, words: str, lost: int = 0, left: int = 0) -> None:
        self._take(Found(lost=lost, left=left, words=[words]))

    def _take(self, found: Found) -> None:
        self._result.found.add(found)


def way_since(subject: Subject, since: float) -> list[str]:
    """Return the statuses of the job since a time, with their reasons."""
    changes = [event for event in orders.history(subject.id) if event.status and event.ts.timestamp() >= since]
    return [f"{event.status}{f' ({event.reason})' if event.reason else ''}" for event in changes]


def events_text(subject: Subject) -> str:
    """Return a summary of the job's events with their times, for a finding."""
    events = [event for event in orders.history(subject.id) if event.type not in ("checkpoint", "submitted", "started")]
    return " > ".join(f"{e.ts:%H:%M:%S.%f}"[:-4] + f" {e.type} {e.reason or ''} by {e.actor}" for e in events)


def eventually_gone(stack: ChaosStack) -> None:
    """Wait for the end of the last trainers."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while pids.trainers_of_any(stack.data_dir) and time.monotonic() < deadline:
        time.sleep(0.1)


def first_step(job_id: UUID, since: float) -> float | None:
    """Return the seconds from a time to the first newer step."""
    rows = orders.asked(lambda session: metrics.page(session, job_id, names=None, after_step=-1, limit=verify.ALL))
    return min((ts.timestamp() - since for _, ts, _ in rows if ts.timestamp() > since), default=None)
