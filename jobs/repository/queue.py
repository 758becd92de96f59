"""Input of the scheduler: queued jobs, running jobs, and machines that take jobs."""

from datetime import timedelta
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Interval, Row, Select, bindparam, case, func, or_, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session, defer

from calibrl.schemas import JobStatus, WorkerStatus
from jobs.models import Attempt, Gpu, Job, JobMachine, Worker
from jobs.repository.jobs import LEASED

CLEANING_SECONDS = 60.0  # a GPU that is not clean by then may be held by a lost process; no job should wait for it
_LOCK = 0xC1A1  # arbitrary, the same for all claims
_UNSTARTED = (JobStatus.QUEUED, JobStatus.WAITING, JobStatus.PAUSED)


def lock(session: Session) -> None:
    """Take the claim lock until the transaction ends: only one process assigns jobs, so that shares and limits are
    exact."""
    session.execute(select(func.pg_advisory_xact_lock(_LOCK)))


def queued(session: Session) -> list[Row[Any]]:
    """Return the queued jobs with the columns that the scheduler needs, oldest first."""
    query = (
        select(
            Job.id,
            Job.project,
            Job.user,
            Job.kind,
            Job.priority,
            Job.machines,
            Job.gpus,
            Job.steps_total,
            Job.machine_labels.label("labels"),
            Job.timeout_seconds.label("timeout"),
            func.extract("epoch", func.now() - Job.created_at).label("age"),
        )
        .where(Job.status == JobStatus.QUEUED, or_(Job.not_before.is_(None), Job.not_before <= func.now()))
        .order_by(Job.created_at, Job.id)
    )
    return list(session.execute(query))


def shapes(session: Session) -> set[tuple[int, int]]:
    """Return (machines, GPUs on each) of the queued jobs, each once."""
    query = select(Job.machines, Job.gpus).where(Job.status == JobStatus.QUEUED).distinct()
    return {(row.machines, row.gpus) for row in session.execute(query)}


def running(session: Session) -> list[Row[Any]]:
    """Return the jobs that hold slots, in the order of their start, with the seconds and steps of the present
    attempt."""
    leaving = Job.preempted | Job.status.in_((JobStatus.PAUSING, JobStatus.CANCELLING))
    query = (
        select(
            Job.id,
            Job.project,
            Job.kind,
            Job.priority,
            func.array_agg(aggregate_order_by(JobMachine.worker, JobMachine.rank)).label("workers"),
            Job.gpus,
            (leaving | func.bool_or(Worker.status.is_not_distinct_from(WorkerStatus.STOPPING))).label("leaving"),
            func.extract("epoch", func.now() - Attempt.started_at).label("seconds"),
            (Job.step - Attempt.first_step).label("steps"),
            (Job.steps_total - Job.step).label("steps_left"),
        )
        .join(Attempt, (Attempt.job_id == Job.id) & (Attempt.number == Job.attempt))
        .join(JobMachine, JobMachine.job_id == Job.id)
        .outerjoin(Worker, Worker.name == JobMachine.worker)
        .where(Job.status.in_(LEASED))
        .group_by(Job.id, Attempt.job_id, Attempt.number)
        .order_by(Attempt.started_at)
    )
    return list(session.execute(query))


def seconds_left(session: Session) -> dict[UUID, float]:
    """Return the remaining seconds of running jobs at the pace of their present attempt, if it can be estimated."""
    return {
        row.id: float(row.seconds) / row.steps * row.steps_left
        for row in running(session)
        if row.steps and row.steps > 0 and row.steps_left is not None
    }


def machines(session: Session, silent_seconds: float) -> list[Row[Any]]:
    """Return the machines that take jobs by name, with their total and free slots."""
    return list(session.execute(_machines(), {"silent": timedelta(seconds=silent_seconds)}))


@cache
def _machines() -> Select[*tuple[Any, ...]]:
    """Build the query for machines with a heartbeat within `:silent`, once, because every change of a job runs it."""
    parts = select(func.count()).join_from(JobMachine, Job, Job.id == JobMachine.job_id)
    on_cpu = parts.where(JobMachine.worker == Worker.name, Job.gpus == 0).correlate(Worker).scalar_subquery()
    free = Gpu.job_id.is_(None) & Gpu.clean
    soon = Gpu.released_at > func.now() - timedelta(seconds=CLEANING_SECONDS)
    slots = func.greatest(Worker.cpu_slots - Worker.stuck_slots, 0)
    return (
        select(
            Worker.name,
            Worker.labels,
            slots.label("cpu_slots"),
            func.count(case((Gpu.job_id.is_not(None) | Gpu.clean | soon, 1))).label("gpus"),
            func.greatest(slots - on_cpu, 0).label("free_cpu_slots"),
            func.greatest(func.count(case((free, 1))) - Worker.stuck_slots, 0).label("free_gpus"),
        )
        .outerjoin(Gpu, Gpu.worker == Worker.name)
        .where(
            Worker.status == WorkerStatus.ONLINE,
            Worker.heartbeat_at > func.now() - bindparam("silent", type_=Interval()),
        )
        .group_by(Worker.name)
        .order_by(Worker.name)
    )


def unstarted(session: Session, project: str | None) -> list[Job]:
    """Return the jobs that have not started, oldest first, without specs, results and notes."""
    query = select(Job).options(defer(Job.spec), defer(Job.result), defer(Job.notes))
    query = query.where(Job.status.in_(_UNSTARTED)).order_by(Job.created_at, Job.id)
    return list(session.scalars(query if project is None else query.where(Job.project == project)))
