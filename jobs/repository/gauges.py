"""State of the service in numbers, for monitoring."""

from typing import Any

from sqlalchemy import ColumnElement, Row, func, literal_column, select, table
from sqlalchemy.orm import Session

from calibrl.schemas import JobStatus, WorkerStatus
from jobs.models import Attempt, Gpu, Job, Worker

_STATISTICS = table("pg_stat_user_tables")


def jobs_by_status(session: Session) -> dict[JobStatus, int]:
    """Return the number of jobs by status; statuses without jobs are left out."""
    return dict(session.execute(select(Job.status, func.count()).group_by(Job.status)).all())


def queue_by_project(session: Session) -> list[Row[Any]]:
    """Return the number of queued jobs (`depth`) and the waiting seconds of the oldest (`oldest`), by project."""
    waited = func.extract("epoch", func.now() - func.min(Job.created_at))
    query = select(Job.project, func.count().label("depth"), waited.label("oldest"))
    return list(session.execute(query.where(Job.status == JobStatus.QUEUED).group_by(Job.project)))


def gpus(session: Session) -> list[Row[Any]]:
    """Return the GPUs of machines that are not offline: machine, index, `held`, utilisation in percent, memory in
    bytes."""
    query = select(Gpu.worker, Gpu.index, Gpu.job_id.is_not(None).label("held"), Gpu.utilisation, Gpu.memory_used)
    joined = query.join(Worker, Worker.name == Gpu.worker).where(Worker.status != WorkerStatus.OFFLINE)
    return list(session.execute(joined.order_by(Gpu.worker, Gpu.index)))


def workers_by_status(session: Session) -> dict[WorkerStatus, int]:
    """Return the number of machines by status."""
    return dict(session.execute(select(Worker.status, func.count()).group_by(Worker.status)).all())


def metric_rows(session: Session) -> int:
    """Return the number of metric rows (one per step and job) written since the statistics of the database began."""
    written: ColumnElement[int] = literal_column("n_tup_ins + n_tup_upd")
    query = select(written).select_from(_STATISTICS).where(literal_column("relname") == "metrics")
    return int(session.scalar(query) or 0)


def lost_steps(session: Session) -> int:
    """Return the number of training steps that stops without a checkpoint lost."""
    return session.scalar(select(func.sum(Attempt.lost_steps)).where(Attempt.lost_steps > 0)) or 0
