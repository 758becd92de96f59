"""What the scheduler decides from: the jobs that could start, those that run, and the machines that take jobs."""

from datetime import timedelta
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Interval, Row, Select, bindparam, case, func, select
from sqlalchemy.orm import Session

from calibrl.schemas import JobStatus, WorkerStatus
from jobs.models import Attempt, Gpu, Job, Worker
from jobs.repository.jobs import LEASED

CLEANING_SECONDS = 60.0  # a GPU that is not clean by then may be held by a ghost, and nobody should wait for it
_LOCK = 0xC1A1  # any number that all who claim agree on
_UNSTARTED = (JobStatus.QUEUED, JobStatus.WAITING, JobStatus.PAUSED)


def lock(session: Session) -> None:
    """Be the only one who gives out jobs until the transaction ends: shares and limits are then exact."""
    session.execute(select(func.pg_advisory_xact_lock(_LOCK)))


def queued(session: Session) -> list[Row[Any]]:
    """The jobs that could start: what the scheduler has to know of each, oldest first."""
    query = (
        select(
            Job.id,
            Job.project,
            Job.user,
            Job.kind,
            Job.priority,
            Job.gpus,
            Job.spec["resources"]["labels"].label("labels"),
            Job.spec["limits"]["timeout_seconds"].as_float().label("timeout"),
            func.extract("epoch", func.now() - Job.created_at).label("age"),
        )
        .where(Job.status == JobStatus.QUEUED)
        .order_by(Job.created_at, Job.id)
    )
    return list(session.execute(query))


def running(session: Session) -> list[Row[Any]]:
    """The jobs that hold slots, in the order they got them: with the seconds and steps of their present attempt."""
    leaving = Job.preempted | Job.status.in_((JobStatus.PAUSING, JobStatus.CANCELLING))
    query = (
        select(
            Job.id,
            Job.project,
            Job.kind,
            Job.priority,
            Job.worker,
            Job.gpus,
            (leaving | (Worker.status == WorkerStatus.STOPPING)).label("leaving"),
            func.extract("epoch", func.now() - Attempt.started_at).label("seconds"),
            (Job.step - Attempt.first_step).label("steps"),
            (Job.steps_total - Job.step).label("steps_left"),
        )
        .join(Attempt, (Attempt.job_id == Job.id) & (Attempt.number == Job.attempt))
        .outerjoin(Worker, Worker.name == Job.worker)
        .where(Job.status.in_(LEASED))
        .order_by(Attempt.started_at)
    )
    return list(session.execute(query))


def seconds_left(session: Session) -> dict[UUID, float]:
    """How long each running job still takes at the pace of its present attempt, where that can be told."""
    return {
        row.id: float(row.seconds) / row.steps * row.steps_left
        for row in running(session)
        if row.steps and row.steps > 0 and row.steps_left is not None
    }


def machines(session: Session, silent_seconds: float) -> list[Row[Any]]:
    """The machines that take jobs, by name, with what they have and what of it is free."""
    return list(session.execute(_machines(), {"silent": timedelta(seconds=silent_seconds)}))


@cache
def _machines() -> Select[*tuple[Any, ...]]:
    """Finds those that were heard of within `:silent`. Put together once, as whatever happens to a job asks for it."""
    held = (Job.worker == Worker.name, Job.status.in_(LEASED), Job.gpus == 0)
    on_cpu = select(func.count()).where(*held).correlate(Worker).scalar_subquery()
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
    """The jobs that wait for anything, oldest first."""
    query = select(Job).where(Job.status.in_(_UNSTARTED)).order_by(Job.created_at, Job.id)
    return list(session.scalars(query if project is None else query.where(Job.project == project)))
