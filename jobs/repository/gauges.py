"""What the service's state is in numbers, for whoever measures it."""

from typing import Any

from sqlalchemy import ColumnElement, Row, func, literal_column, select, table
from sqlalchemy.orm import Session

from calibrl.schemas import JobStatus, WorkerStatus
from jobs.models import Gpu, Job, Worker

_STATISTICS = table("pg_stat_user_tables")


def jobs_by_status(session: Session) -> dict[JobStatus, int]:
    """How many jobs are in each status; those that have none are left out."""
    return dict(session.execute(select(Job.status, func.count()).group_by(Job.status)).all())


def queue_by_project(session: Session) -> list[Row[Any]]:
    """Of each project with queued jobs: `depth`, how many, and `oldest`, the seconds that the first has waited."""
    waited = func.extract("epoch", func.now() - func.min(Job.created_at))
    query = select(Job.project, func.count().label("depth"), waited.label("oldest"))
    return list(session.execute(query.where(Job.status == JobStatus.QUEUED).group_by(Job.project)))


def gpus(session: Session) -> list[Row[Any]]:
    """Every GPU of the machines that have not ended: machine, index, whether held, utilisation, memory in bytes."""
    query = select(Gpu.worker, Gpu.index, Gpu.job_id.is_not(None).label("held"), Gpu.utilisation, Gpu.memory_used)
    joined = query.join(Worker, Worker.name == Gpu.worker).where(Worker.status != WorkerStatus.OFFLINE)
    return list(session.execute(joined.order_by(Gpu.worker, Gpu.index)))


def workers_by_status(session: Session) -> dict[WorkerStatus, int]:
    """How many machines are in each status."""
    return dict(session.execute(select(Worker.status, func.count()).group_by(Worker.status)).all())


def metric_rows(session: Session) -> int:
    """Rows of metrics written since the database's statistics began: one a step of a job."""
    written: ColumnElement[int] = literal_column("n_tup_ins + n_tup_upd")
    query = select(written).select_from(_STATISTICS).where(literal_column("relname") == "metrics")
    return int(session.scalar(query) or 0)
