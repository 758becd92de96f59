"""Runs the scheduler on the jobs in the database, and wakes the workers that can start a job."""

from collections.abc import Sequence, Set
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.orm import Session

from calibrl.schemas import HOUR, JobStatus, Priority, QueueEntry, QueuePlan, WaitReason
from jobs import models
from jobs.db import after_commit, session_scope, wake_after_commit
from jobs.repository import job_machines, projects, queue
from jobs.scheduling.preemption import victims
from jobs.scheduling.scheduler import plan
from jobs.scheduling.situation import Machine, Placement, QueuedJob, RunningJob, Share
from jobs.settings import get_settings

_MAX_PREEMPTING_JOBS = 20  # blocked jobs, first in line first, for which one sweep looks for jobs to preempt


class SchedulerInput:
    """Input of the scheduler, as of this transaction."""

    def __init__(self, session: Session, also: models.Job | None = None) -> None:
        """Load the input. `also`: a job that is not in the database, treated as if it were queued now."""
        settings = get_settings()
        self.machines = [Machine(**row._mapping) for row in queue.machines(session, settings.lease_seconds)]
        self._typical = projects.typical_seconds(session)
        self.running = [self._running(row) for row in queue.running(session)]
        self.queued = [self._queued(row) for row in queue.queued(session)]
        self.queued += [self._not_there(also)] if also else []
        users = {(job.project, job.user) for job in self.queued}
        self.shares = _shares(session, settings.fair_share_half_life_hours * HOUR, users)

    def _queued(self, row: Row[Any]) -> QueuedJob:
        return QueuedJob(
            id=row.id,
            project=row.project,
            user=row.user,
            priority=row.priority,
            gpus=row.gpus,
            labels=row.labels or {},
            age=float(row.age),
            seconds=self.expected_seconds(row.project, row.kind, row.timeout, row.steps_total),
            machines=row.machines,
        )

    def _not_there(self, job: models.Job) -> QueuedJob:
        return QueuedJob(
            id=job.id,
            project=job.project,
            user=job.user,
            priority=_priority(job),
            gpus=job.gpus,
            labels=job.machine_labels,
            age=0.0,
            seconds=self.expected_seconds(job.project, job.kind, job.timeout_seconds, job.steps_total),
            machines=job.machines,
        )

    def expected_seconds(self, project: str, kind: str, timeout: float | None, steps: int | None) -> float | None:
        """Return the expected run time of a job, at most its timeout: its steps at the pace of recent jobs, or their
        mean if its steps are not known. None if unknown."""
        typical = self._typical.get((project, kind))
        by_steps = steps * typical.of_step if typical and typical.of_step and steps else None
        usual = by_steps or (typical and typical.of_job)
        return min((seconds for seconds in (timeout, usual) if seconds), default=None)

    def counts_steps(self, project: str, kind: str, steps: int | None) -> bool:
        """Return True if `expected_seconds` is by the steps of the job."""
        typical = self._typical.get((project, kind))
        return bool(steps and typical and typical.of_step)

    def _running(self, row: Row[Any]) -> RunningJob:
        seconds, steps = float(row.seconds), row.steps or 0
        typical = self._typical.get((row.project, row.kind))
        left = typical and typical.of_job
        if steps > 0 and row.steps_left is not None:
            left = seconds / steps * row.steps_left
        elif left is not None:
            left = max(0.0, left - seconds)
        return RunningJob(
            id=row.id,
            project=row.project,
            priority=row.priority,
            workers=tuple(row.workers),
            gpus=row.gpus,
            seconds_left=left,
            leaving=bool(row.leaving),
        )

    def placements(self, *, until_full: bool = False, without: frozenset[UUID] = frozenset()) -> list[Placement]:
        """Return the plan without some jobs."""
        queued = [job for job in self.queued if job.id not in without]
        return plan(queued, self.running, self.machines, self.shares, until_full=until_full)

    def to_preempt(self) -> list[UUID]:
        """Return the running jobs to preempt for jobs of a higher class."""
        by_id = {job.id: job for job in self.queued}
        blocked = [
            placement for placement in self.placements() if placement.reason in (WaitReason.BUSY, WaitReason.RESERVED)
        ]
        for placement in blocked[:_MAX_PREEMPTING_JOBS]:
            preempted = victims(by_id[placement.job_id], self.running, self.machines)
            if preempted is not None and preempted[1]:
                return preempted[1]  # for one job at a time: the next plan knows the slots that they free
        return []


def startable(session: Session, without: frozenset[UUID] = frozenset()) -> list[Placement]:
    """Return the jobs that can start now, each with its machine. No plan is made if no queued job fits free slots."""
    machines = queue.machines(session, get_settings().lease_seconds)
    if not any(_has_room(machines, *shape) for shape in queue.shapes(session)):
        return []
    return [
        placement
        for placement in SchedulerInput(session).placements(until_full=True, without=without)
        if placement.starts_in == 0
    ]


def _has_room(machines: Sequence[Row[Any]], count: int, gpus: int) -> bool:
    """Return True if `count` machines have this number of free GPUs each, or a free CPU slot if it is 0."""
    fitting = [one for one in machines if (one.free_gpus >= gpus if gpus else one.free_cpu_slots > 0)]
    return len(fitting) >= count


def plan_after_commit(session: Session, *, awake: str | None = None) -> None:
    """Wake the workers with room for queued jobs after the commit of this session: a plan takes long when many jobs
    wait, and the session holds locks. `awake`: as in `wake_for_free_slots`."""

    def plan_and_wake() -> None:
        with session_scope() as later:
            wake_for_free_slots(later, awake=awake)

    after_commit(session, "plan", plan_and_wake)


def wake_for_free_slots(session: Session, *, awake: str | None = None) -> int:
    """Wake the workers with room for queued jobs once this session has committed. Return the number of wake-ups.

    The worker `awake` looks for its next job by itself, so one of its slots is skipped.
    """
    session.flush()
    workers = [placement.workers[0] for placement in startable(session)]
    if awake in workers:
        workers.remove(awake)
    workers += job_machines.called(session)  # a wake-up can be lost
    for worker in workers:
        wake_after_commit(session, worker)
    return len(workers)


def queue_entries(session: Session, project: str | None = None) -> list[QueueEntry]:
    """Return every job that has not started, first in line first, with reason, position and estimated start."""
    placements = {placement.job_id: placement for placement in SchedulerInput(session).placements()}
    entries = [_entry(job, placements.get(job.id)) for job in queue.unstarted(session, project)]
    return sorted(entries, key=lambda entry: (entry.position is None, entry.position or 0, entry.queued_at))


def queue_forecast(session: Session, job: models.Job, *, waits: bool) -> QueuePlan:
    """Return the place in the queue that a job outside the database would have. `waits`: it has open dependencies."""
    situation = SchedulerInput(session, job)
    placement = None if waits else next(one for one in situation.placements() if one.job_id == job.id)
    reason = placement.reason if placement else WaitReason.WAITING
    return QueuePlan(
        position=placement.position if placement else None,
        reason=reason,
        explanation=explain(job, placement, reason),
        estimated_start=_start(placement),
        expected_seconds=situation.expected_seconds(job.project, job.kind, job.timeout_seconds, job.steps_total),
        by_steps=situation.counts_steps(job.project, job.kind, job.steps_total),
        slots=job.machines * max(1, job.gpus),
    )


def _start(placement: Placement | None) -> datetime | None:
    if placement is None or placement.starts_in is None:
        return None
    return datetime.now(UTC) + timedelta(seconds=placement.starts_in)


def _entry(job: models.Job, placement: Placement | None) -> QueueEntry:
    reason = placement.reason if placement else _held_back(job)
    return QueueEntry(
        job_id=job.id,
        name=job.name,
        project=job.project,
        user=job.user,
        priority=_priority(job),
        machines=job.machines,
        gpus=job.gpus,
        status=job.status,
        position=placement.position if placement else None,
        reason=reason,
        explanation=explain(job, placement, reason),
        estimated_start=_start(placement),
        queued_at=job.created_at,
    )


def _held_back(job: models.Job) -> WaitReason | None:
    """Return why a job is not in the plan."""
    if job.status is not JobStatus.QUEUED:
        return WaitReason(job.status)
    return WaitReason.LATER if job.not_before is not None and job.not_before > datetime.now(UTC) else None


def explain(job: models.Job, placement: Placement | None, reason: WaitReason | None) -> str:
    """Explain in one sentence why a job has not started."""
    gpus = "GPUs" if job.gpus > 1 else "GPU"
    needs = f"{job.gpus} {gpus}" if job.gpus else "a CPU slot"
    free = f"{job.gpus} free {gpus}" if job.gpus else "a free CPU slot"
    labels = job.machine_labels
    where = f" labelled {', '.join(f'{key}={value}' for key, value in labels.items())}" if labels else ""
    match reason:
        case None:
            return f"starts on {', '.join(placement.workers)} now" if placement else "is about to start"
        case WaitReason.NO_MACHINE if job.machines > 1:
            return f"fewer than {job.machines} online machines{where} have {needs} each"
        case WaitReason.NO_MACHINE:
            return f"no online machine{where} has {needs}"
        case WaitReason.BUSY if job.machines > 1:
            return f"waiting for {job.machines} machines with {free} each"
        case WaitReason.BUSY:
            return f"waiting for {free}"
        case WaitReason.RESERVED:
            behind = placement.behind if placement else None
            return f"the free slots are reserved for job {behind}, which is ahead in the queue"
        case WaitReason.PROJECT_LIMIT:
            return f"project {job.project} has reached its limit of GPUs"
        case WaitReason.BUDGET:
            return f"project {job.project}, or {job.user} in it, has used up its slot-hours of this month"
        case WaitReason.LATER:
            until = job.not_before.astimezone(UTC) if job.not_before else None
            return f"its last start met a fault that can pass; the next start is after {until:%H:%M:%S} UTC"
        case WaitReason.WAITING:
            return "waiting for its dependencies"
        case WaitReason.PAUSED:
            return "is paused; resume it to put it back in the queue"


def _priority(job: models.Job) -> Priority:
    assert job.priority in ("low", "normal", "high")
    return job.priority  # type: ignore[return-value]


def _shares(session: Session, half_life_seconds: float, users: Set[tuple[str, str]]) -> dict[str, Share]:
    """Return the shares by project. `users`: (project, user) pairs with waiting jobs, including those without any
    use yet."""
    used = projects.usage(session, half_life_seconds)
    waiting = {slug: {user for project, user in users if project == slug} for slug, _ in users}
    return {one.slug: _share(one, used, waiting.get(one.slug, set())) for one in projects.all_of(session)}


def _share(project: models.Project, used: Sequence[Row[Any]], users: Set[str]) -> Share:
    own = [row for row in used if row.project == project.slug]
    budget, user_budget = project.budget_slot_hours, project.user_budget_slot_hours
    spent = {row.user: row.month for row in own}
    left_by_user = {} if user_budget is None else {user: user_budget * HOUR - spent.get(user, 0.0) for user in users}
    return Share(
        weight=project.weight,
        recent=sum(row.recent for row in own),
        max_gpus=project.max_gpus,
        budget_left=None if budget is None else budget * HOUR - sum(row.month for row in own),
        left_by_user=left_by_user,
    )
