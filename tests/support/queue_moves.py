"""Random operations on the queue, each checked against the model of it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from calibrl.schemas import HOUR, JobChanges, JobStatus, Priority, ProjectSettings, WaitReason
from jobs import lifecycle
from jobs.db import session_scope
from jobs.errors import Conflict, Invalid, QuotaExceeded
from jobs.lifecycle import Claim, LeaseLost, machines
from jobs.repository import job_machines, projects, workers
from jobs.settings import get_settings
from tests.support import job_steps
from tests.support.queue_model import FINAL, LEASE, LOST, Job, Model
from tests.support.queue_rows import check_rows

S = JobStatus
MACHINES = st.sampled_from(["cpu", "two", "three"])
PRIORITIES: list[Priority] = ["high", "normal", "low"]
LABELS: list[dict[str, str]] = [{}, {}, {"site": "x"}, {"site": "y"}]
LIMITS: list[list[Any]] = [[None, 0, 1, 3], [None, 0, 2], [None, 0.0, 0.5, 2.1]]  # max_gpus, max_queued, slot-hours
LEAPS = [20 * 60.0, 2 * HOUR]  # the first is shorter than a lease, two of them are longer
PICK = st.integers(0, 60)  # of a list, from its beginning again where it is shorter
HOW = st.sampled_from(["succeeded", "succeeded", "failed", "queued", "paused"])
JOB = st.fixed_dictionaries(
    {
        "needs": st.one_of(st.just([]), st.just([]), st.lists(PICK, max_size=2)),
        "starts_from_it": st.booleans(),  # from the first one's checkpoint
        "project": st.sampled_from(["default", "a", "b"]),
        "priority": st.sampled_from(PRIORITIES),
        "machines": st.sampled_from([1, 1, 1, 1, 2, 2, 3]),
        "gpus": st.sampled_from([0, 0, 0, 1, 1, 2, 3, 3, 4]),
        "labels": st.sampled_from(LABELS),
        "most_lost": st.sampled_from([None, 1, 2]),
    }
)


def move(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(name), *arguments)


# One rule that does any of these, the frequent ones named more than once: of many rules, an example leaves most out.
MOVES = st.one_of(
    move("submit", JOB),
    move("ask", PICK, st.sampled_from(["cancel", "pause", "resume", "retry"])),
    move("ask", PICK, st.sampled_from(["cancel", "pause", "resume", "retry"])),
    move("prioritise", PICK, st.sampled_from(PRIORITIES)),
    move("claim", st.lists(MACHINES, min_size=1, max_size=4)),
    move("claim", st.lists(MACHINES, min_size=1, max_size=4)),
    move("work", PICK, st.just(True), st.sampled_from(["finish", "heartbeat", "checkpoint", "start", "parts"]), HOW),
    move("work", PICK, st.just(False), st.just("finish"), HOW),
    move("work", PICK, st.just(False), st.sampled_from(["finish", "heartbeat", "checkpoint", "start", "parts"]), HOW),
    move("machine", MACHINES, st.sampled_from(["started", "online", "online", "draining", "stopping"])),
    move("beat_machines", st.lists(MACHINES, max_size=1)),
    move("pass_time", st.sampled_from(LEAPS), st.lists(MACHINES, max_size=1)),
    move("take_over"),
    move("sweep", st.sampled_from([True, True, False])),
    move("limit", st.sampled_from(["a", "b"]), *map(st.sampled_from, LIMITS)),
    move("look"),
)


@contextmanager
def preemption(wanted: bool) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CALIBRL_PREEMPTION", str(wanted))
        get_settings.cache_clear()
        yield
    get_settings.cache_clear()


def ask(action: Callable[..., Any], job_id: UUID, *arguments: Any) -> bool:
    """Return True if a person's action on a job is done, False if it is refused."""
    try:
        with session_scope() as session:
            action(session, job_id, *arguments, actor="user")
    except Conflict:
        return False
    return True


class Queue(RuleBasedStateMachine):
    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        super().__init__()
        self.connection = connection
        connection.execute("DELETE FROM gpus; DELETE FROM jobs; DELETE FROM workers; DELETE FROM projects")
        self.model = Model()
        self.claims: list[Claim] = []
        for name in self.model.projects:
            self._put_project(name)
        for name in self.model.machines:
            self.start_machine(name)

    # ApiUsers

    @rule(move=MOVES)
    def step(self, move: tuple[Any, ...]) -> None:
        getattr(self, move[0])(*move[1:])

    @initialize(wanted=st.lists(JOB, min_size=4, max_size=10), busy=st.booleans())
    def begin(self, wanted: list[dict[str, Any]], busy: bool) -> None:
        for one in wanted:
            self.submit(one)
        if busy:
            self.claim([*self.model.machines] * 3)

    def submit(self, wanted: dict[str, Any]) -> None:
        known = [*self.model.jobs]
        needs = tuple(dict.fromkeys(known[index % len(known)] for index in wanted["needs"] if known))
        origin = needs[0] if needs and wanted["starts_from_it"] else None
        project, gpus, count = wanted["project"], wanted["gpus"], wanted["machines"]
        possible = sum(one.gpus >= gpus if gpus else one.cpu_slots > 0 for one in self.model.machines.values()) >= count
        most = self.model.projects[project].max_queued
        lost = any(self.model.jobs[id].status in LOST for id in needs)
        full = most is not None and self.model.open_jobs(project) >= most
        try:
            id = job_steps.submit(
                *needs,
                model={"from_job": str(origin)} if origin else None,
                project=project,
                priority=wanted["priority"],
                resources={"machines": count, "gpus": gpus, "labels": wanted["labels"]},
                limits={"max_attempts": wanted["most_lost"]},
            )
        except Invalid:
            assert not possible or lost
            return
        except QuotaExceeded:
            assert full
            return
        assert possible and not lost and not full
        most_lost = wanted["most_lost"] or 3
        job = Job(id, project, wanted["priority"], count, gpus, wanted["labels"], needs, origin, most_lost)
        job.status = self.model.in_line_again(job) or ""
        self.model.jobs[id] = job

    def ask(self, pick: int, what: str) -> None:
        if job := self._pick(pick):
            to = self.model.asked(job, what)
            assert ask(getattr(lifecycle, what), job.id) == (to is not None)
            if to:
                job.lost = 0 if what == "retry" else job.lost
                self.model.set(job, to)

    def prioritise(self, pick: int, priority: Priority) -> None:
        if job := self._pick(pick):
            done = ask(lifecycle.edit, job.id, JobChanges(priority=priority))
            assert done == (job.status not in FINAL)
            job.priority = priority if done else job.priority

    def _pick(self, pick: int) -> Job | None:
        known = [*self.model.jobs.values()]
        return known[pick % len(known)] if known else None

    def limit(self, name: str, max_gpus: int | None, max_queued: int | None, budget: float | None) -> None:
        self._put_project(name, max_gpus=max_gpus, max_queued=max_queued, budget_slot_hours=budget)

    def _put_project(self, name: str, **settings: Any) -> None:
        with session_scope() as session:
            projects.put(session, name, ProjectSettings(**settings).model_dump())
        for key in ("max_gpus", "max_queued", "budget_slot_hours"):
            setattr(self.model.projects[name], key, settings.get(key))

    def look(self) -> None:
        """Check the queue's entries: every job that has not started, positions without a gap, each with a reason."""
        with session_scope() as session:
            entries = {entry.job_id: entry for entry in lifecycle.queue_entries(session)}
        unstarted = {id: job for id, job in self.model.jobs.items() if job.status in ("queued", "waiting", "paused")}
        assert entries.keys() == unstarted.keys()
        in_line = [entries[id] for id, job in unstarted.items() if job.status == "queued"]
        assert sorted(entry.position or 0 for entry in in_line) == [*range(1, len(in_line) + 1)]
        for entry in in_line:
            job = self.model.jobs[entry.job_id]
            takers = [one for one in self.model.machines.values() if self.model.could_take(one, job)]
            limited = entry.reason in (WaitReason.PROJECT_LIMIT, WaitReason.BUDGET)
            assert limited or (entry.reason is WaitReason.NO_MACHINE) == (len(takers) < job.machines)

    # Machines

    def claim(self, names: list[str]) -> None:
        for name in names:
            self._claim(name)

    def _claim(self, name: str) -> Claim | None:
        with session_scope() as session:
            claim = lifecycle.claim(session, worker=name)
        self._fail_those_without_checkpoint()
        if claim is None:
            return None
        job = self.model.jobs[claim.job_id]
        month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        began = self.model.now - (datetime.now(UTC) - month).total_seconds()
        parts = [claim, *self._take_parts(claim)]
        gpus = dict(zip(self._workers(claim), (part.gpus for part in parts), strict=True))
        assert next(iter(gpus)) == name and [part.rank for part in parts] == [*range(job.machines)]
        assert [self.model.may_start(job, worker, began) for worker in gpus] == [[]] * job.machines
        assert self.model.passed_over(job, gpus.keys(), began) == []
        for worker, part in zip(gpus, parts, strict=True):
            assert (part.job_id, part.token, part.attempt, len(part.gpus)) == (
                (job.id, claim.token, job.attempt + 1, job.gpus)
            )
            assert all(self.model.machines[worker].cards[index] is None for index in part.gpus)
        assert {one.step: one.path for one in claim.checkpoints} == job.checkpoints
        self.model.start(job, gpus)
        self.claims.append(claim)
        return claim

    def _workers(self, claim: Claim) -> list[str]:
        with session_scope() as session:
            return [part.worker for part in job_machines.of_job(session, claim.job_id)]

    def _take_parts(self, claim: Claim) -> list[Claim]:
        """The other machines of a claim take their parts at once."""
        taken = []
        for worker in self._workers(claim)[1:]:
            with session_scope() as session:
                part = lifecycle.take_part(session, worker=worker)
                assert part and lifecycle.take_part(session, worker=worker) is None
            taken.append(part)
        return taken

    def _fail_those_without_checkpoint(self) -> None:
        for job in self.model.jobs.values():
            if job.status == "queued" and job.origin and not self.model.jobs[job.origin].checkpoints:
                row = self.connection.execute("SELECT status FROM jobs WHERE id = %s", [job.id]).fetchone()
                if row == ("failed",):
                    self.model.set(job, "failed")

    def _holds(self, claim: Claim) -> bool:
        job = self.model.jobs[claim.job_id]
        return job.held and job.attempt == claim.attempt

    def work(self, pick: int, stale: bool, does: str, how: str) -> None:
        """Act as a worker with a claim, current or lost."""
        if not self.claims:
            return
        lost = [claim for claim in self.claims if not self._holds(claim)]
        taken_over = [claim for claim in lost if self.model.jobs[claim.job_id].held]
        own = [claim for claim in self.claims if self._holds(claim)]
        among = (taken_over or lost if stale else own) or self.claims
        claim = among[pick % len(among)]
        job, holds = self.model.jobs[claim.job_id], self._holds(claim)
        try:
            match does:
                case "finish":
                    job_steps.finish(claim, S(how))
                    self.model.finish(job, how)
                case "heartbeat":
                    assert job_steps.heartbeat(claim) == (self.model.order(job) if holds else "abandon")
                    job.expires = self.model.now + LEASE if holds else job.expires
                    return
                case "parts":
                    for rank in range(1, claim.machines):
                        with session_scope() as session:
                            order = lifecycle.part_heartbeat(session, replace(claim, rank=rank))
                        assert order == ("continue" if holds else "abandon")
                    job.parts_expire = self.model.now + LEASE if holds else job.parts_expire
                    return
                case "checkpoint":
                    with session_scope() as session:
                        lifecycle.fence(session, claim)
                    path = job_steps.checkpoint(job.id, pick % 5, attempt=claim.attempt)
                    job.checkpoints[pick % 5] = path
                case "start":
                    with session_scope() as session:
                        lifecycle.start(session, claim)
        except LeaseLost:
            assert not holds
        else:
            assert holds

    def pass_time(self, seconds: float, silent: list[str]) -> None:
        """Move all stored times back by `seconds`; machines that are not silent have sent a heartbeat since."""
        self.model.now += seconds
        columns = {
            "jobs": ("created_at", "started_at", "finished_at"),
            "attempts": ("started_at", "finished_at"),
            "workers": ("heartbeat_at",),
            "gpus": ("released_at",),
        }
        for table, names in columns.items():
            moved = ", ".join(f"{name} = {name} - interval '{seconds} seconds'" for name in names)
            self.connection.execute(f"UPDATE {table} SET {moved}".encode())
        lease = f"greatest(lease_expires_at - interval '{seconds} seconds', now() - interval '1 second')"
        self.connection.execute(f"UPDATE jobs SET lease_expires_at = {lease} WHERE lease_token IS NOT NULL".encode())
        part = lease.replace("lease_expires_at", "expires_at")
        self.connection.execute(f"UPDATE job_machines SET expires_at = {part} WHERE rank > 0".encode())
        self.beat_machines(silent)

    def sweep(self, preempts: bool) -> None:
        expected = self.model.sweep()
        with preemption(preempts):
            swept = job_steps.sweep()
        assert (swept.requeued, swept.paused, swept.failed, swept.cancelled, swept.released) == (*expected.values(), 0)
        marked = [self.model.jobs[row.id] for row in self.connection.execute("SELECT id FROM jobs WHERE preempted")]
        new = [job for job in marked if not job.preempted]
        assert len(new) == swept.preempted and (preempts or not new)
        classes = [PRIORITIES.index(job.priority) for job in self.model.jobs.values() if job.status == "queued"]
        for job in new:
            assert job.status == "running" and min(classes) < PRIORITIES.index(job.priority)
            job.preempted = True

    def start_machine(self, name: str) -> None:
        """Register the machine, as after a restart of its worker, and report its unheld GPUs as free."""
        machine = self.model.machines[name]
        job_steps.machine(name, cpu_slots=machine.cpu_slots, gpus=machine.gpus, labels=machine.labels)
        machine.heard = self.model.now
        machine.status = "draining" if machine.drained else "online"
        machine.cards = {index: machine.cards.get(index) for index in range(machine.gpus)}
        machine.clean |= {index for index, holder in machine.cards.items() if holder is None}

    def beat_machines(self, silent: list[str]) -> None:
        """A round of every keeper but these."""
        with session_scope() as session:
            for name in self.model.machines.keys() - silent:
                machine = self.model.machines[name]
                unclean = workers.unclean_gpus(session, name)
                assert unclean == {index for index, job_id in machine.cards.items() if job_id is None} - machine.clean
                workers.record_heartbeat(session, name, [job_steps.card(index) for index in machine.cards], [])
                workers.mark_clean(session, name, unclean)
                machine.heard = self.model.now
                machine.clean |= unclean

    def machine(self, name: str, what: str) -> None:
        if what == "started":
            self.start_machine(name)
        else:
            self.drain(name, what)

    def take_over(self) -> None:
        """Every worker is silent for too long, and what it ran is claimed again."""
        self.pass_time(LEAPS[-1], [])
        self.sweep(False)
        self.beat_machines([])
        self.claim([*self.model.machines] * 2)

    def drain(self, name: str, to: str) -> None:
        if self.model.machines[name].status == to:
            return
        with session_scope() as session:
            if to == "online":
                machines.undrain(session, name)
            else:
                machines.drain(session, name, now=to == "stopping")
        self.model.machines[name].status, self.model.machines[name].drained = to, to != "online"

    # What must hold

    @invariant()
    def the_tables_are_as_the_model(self) -> None:
        found = check_rows(self.connection)
        known = self.model.jobs
        assert {id: row.status for id, row in found.items()} == {id: job.status for id, job in known.items()}
        workers_of = {id: (job.workers or (None,))[0] for id, job in known.items()}
        assert {id: row.worker for id, row in found.items()} == workers_of
        assert {id for id, row in found.items() if row.preempted} == {job.id for job in known.values() if job.preempted}

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:
            self._all_jobs_end()

    def _all_jobs_end(self) -> None:
        """Check that every job ends once all machines are online and no limit is set."""
        for name in self.model.projects:
            self._put_project(name)
        for name in self.model.machines:
            self.drain(name, "online")
        held = [claim for claim in self.claims if self._holds(claim)]
        unended = [job for job in self.model.jobs.values() if job.status not in FINAL]
        for _ in range(len(unended) + 2):
            for claim in held:
                self._end(claim)
            self.beat_machines([])
            held = []
            for name in self.model.machines:
                while taken := self._claim(name):
                    held.append(taken)
            if not held:
                break
        assert not held
        self.the_tables_are_as_the_model()
        assert [job for job in unended if job.status not in FINAL and self.model.can_end(job)] == []

    def _end(self, claim: Claim) -> None:
        job = self.model.jobs[claim.job_id]
        outcome = {"stop": "queued", "pause": "paused"}.get(self.model.order(job), "succeeded")
        job_steps.finish(claim, S(outcome))
        self.model.finish(job, outcome)
