"""Machines that run jobs, and the jobs that hold their GPUs."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import case, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from calibrl.schemas import GpuReading, WorkerStatus
from jobs.errors import NotFound
from jobs.models import Gpu, JobMachine, Worker


def register(
    session: Session,
    name: str,
    *,
    host: str,
    labels: dict[str, str],
    versions: dict[str, str],
    cpu_slots: int,
) -> None:
    """Record that a worker has started and takes jobs, unless it was drained before."""
    values: dict[str, Any] = {"host": host, "labels": labels, "versions": versions, "cpu_slots": cpu_slots}
    values["heartbeat_at"] = func.clock_timestamp()
    statement = insert(Worker).values(name=name, status=WorkerStatus.ONLINE, **values)
    still = case((Worker.drained, WorkerStatus.DRAINING.value), else_=WorkerStatus.ONLINE.value)
    session.execute(statement.on_conflict_do_update(index_elements=[Worker.name], set_=values | {"status": still}))


def record_heartbeat(session: Session, name: str, gpus: Sequence[GpuReading], running: Sequence[UUID]) -> None:
    """Record a heartbeat of a worker with its running jobs and GPU readings. A GPU without a reading is left out.

    A slot is stuck if it still runs a job that this worker has lost, or that now runs in another slot. A stuck slot
    takes no other job.

    Raises:
        NotFound: no worker of this name is registered.
    """
    held = select(func.count()).where(JobMachine.job_id.in_(running), JobMachine.worker == name)
    stuck = len(running) - (session.scalar(held) or 0)
    values = {"heartbeat_at": func.clock_timestamp(), "stuck_slots": stuck}
    worker_row = update(Worker).where(Worker.name == name).values(values)
    if session.scalar(worker_row.returning(Worker.name)) is None:
        raise NotFound(f"There is no worker {name}.")
    _lock_gpus(session, name)
    for gpu in gpus:
        reading = gpu.model_dump(exclude={"index"})
        statement = insert(Gpu).values(worker=name, index=gpu.index, clean=False, **reading)
        session.execute(statement.on_conflict_do_update(index_elements=[Gpu.worker, Gpu.index], set_=reading))
    missing = Gpu.index.not_in([gpu.index for gpu in gpus])
    session.execute(delete(Gpu).where(Gpu.worker == name, missing, Gpu.job_id.is_(None)))


def unclean_gpus(session: Session, name: str) -> set[int]:
    """Return the GPUs that no job holds but whose memory is not free yet."""
    query = select(Gpu.index).where(Gpu.worker == name, Gpu.job_id.is_(None), ~Gpu.clean)
    return set(session.scalars(query))


def mark_clean(session: Session, name: str, indices: set[int]) -> None:
    """Return GPUs to the pool. Their memory must have been free *after* `unclean_gpus` returned them."""
    waiting = (Gpu.worker == name, Gpu.index.in_(indices), Gpu.job_id.is_(None))
    session.execute(update(Gpu).where(*waiting).values(clean=True))


def lock_free_gpus(session: Session, name: str) -> list[int]:
    """Lock the GPUs of a worker that no job holds and whose memory is free. Return their indices, ascending."""
    free = select(Gpu.index).where(Gpu.worker == name, Gpu.job_id.is_(None), Gpu.clean).order_by(Gpu.index)
    return list(session.scalars(free.with_for_update()))


def lock_unheld_gpus(session: Session, name: str) -> list[int]:
    """Lock the GPUs of a worker that no job holds, clean or not. Return their indices, ascending."""
    unheld = select(Gpu.index).where(Gpu.worker == name, Gpu.job_id.is_(None)).order_by(Gpu.index)
    return list(session.scalars(unheld.with_for_update()))


def gpus_of(session: Session, name: str, job_id: UUID) -> tuple[int, ...]:
    """Return the indices of the GPUs of a worker that a job holds, ascending."""
    query = select(Gpu.index).where(Gpu.worker == name, Gpu.job_id == job_id).order_by(Gpu.index)
    return tuple(session.scalars(query))


def assign_gpus(session: Session, name: str, job_id: UUID, indices: Sequence[int]) -> None:
    """Assign GPUs of a worker to a job. The caller has locked them."""
    session.execute(update(Gpu).where(Gpu.worker == name, Gpu.index.in_(indices)).values(job_id=job_id))


def release_gpus(session: Session, job_id: UUID) -> None:
    """Release the GPUs of a job. They can be assigned again once their memory is free."""
    held = select(Gpu.index).where(Gpu.job_id == job_id).order_by(Gpu.worker, Gpu.index).with_for_update()
    if session.scalars(held).all():
        freed = update(Gpu).where(Gpu.job_id == job_id)
        session.execute(freed.values(job_id=None, clean=False, released_at=func.now()))


def _lock_gpus(session: Session, name: str) -> None:
    """Lock the GPUs of a worker by index. All code that changes several GPUs uses this order."""
    session.scalars(select(Gpu.index).where(Gpu.worker == name).order_by(Gpu.index).with_for_update()).all()


def set_status(session: Session, name: str, status: WorkerStatus, *, drained: bool | None = None) -> None:
    """Set the status of a worker. `drained`: the status persists over restarts; None: unchanged.

    Raises:
        NotFound: no worker has this name.
    """
    values = {"status": status} if drained is None else {"status": status, "drained": drained}
    changed = update(Worker).where(Worker.name == name).values(values).returning(Worker.name)
    if session.scalar(changed) is None:
        raise NotFound(f"There is no worker {name}.")


def get(session: Session, name: str) -> Worker:
    """Return a worker.

    Raises:
        NotFound: no worker has this name.
    """
    row = session.get(Worker, name, populate_existing=True)
    if row is None:
        raise NotFound(f"There is no worker {name}.")
    return row


def lock(session: Session, name: str) -> None:
    """Lock a worker.

    Raises:
        NotFound: no worker has this name.
    """
    if session.scalar(select(Worker.name).where(Worker.name == name).with_for_update()) is None:
        raise NotFound(f"There is no worker {name}.")


def remove(session: Session, name: str) -> None:
    """Remove a machine with its GPUs."""
    session.execute(delete(Worker).where(Worker.name == name))


def any_stops(session: Session, job_id: UUID) -> bool:
    """Return True if a machine of a job stops its jobs, or has ended before it took its part."""
    stops = (Worker.status == WorkerStatus.STOPPING) | ((Worker.status == WorkerStatus.OFFLINE) & (JobMachine.rank > 0))
    query = select(Worker.name).join(JobMachine, JobMachine.worker == Worker.name)
    return session.scalar(query.where(JobMachine.job_id == job_id, stops).limit(1)) is not None


def hosts(session: Session, job_id: UUID) -> set[str]:
    """Return the host names of the machines of a job."""
    query = select(Worker.host).join(JobMachine, JobMachine.worker == Worker.name)
    return set(session.scalars(query.where(JobMachine.job_id == job_id)))


def largest(session: Session) -> int:
    """Return the largest number of GPUs of any machine, online or not."""
    return max(_sizes(session), default=0)


def count_with(session: Session, gpus: int) -> int:
    """Return the number of machines, online or not, with at least this number of GPUs; with a CPU slot if it is 0."""
    if gpus:
        return sum(size >= gpus for size in _sizes(session))
    return session.scalar(select(func.count()).where(Worker.cpu_slots > 0)) or 0


def any_runs_functions(session: Session) -> bool:
    """Return True if a machine, online or not, has reported that it can run functions of users."""
    return session.scalar(select(Worker.name).where(Worker.versions["sandbox"].is_not(None)).limit(1)) is not None


def _sizes(session: Session) -> list[int]:
    """Return the number of GPUs of each machine that has any."""
    return list(session.scalars(select(func.count()).select_from(Gpu).group_by(Gpu.worker)))


def page(
    session: Session, *, limit: int, silent_seconds: float, after: str = "", only: str | None = None
) -> list[tuple[Worker, bool, list[UUID]]]:
    """Return workers by name starting after `after`, or only `only`. Each with True if it is silent, and the ids of
    its jobs."""
    heard = Worker.heartbeat_at > func.now() - timedelta(seconds=silent_seconds)
    held = func.array_remove(func.array_agg(JobMachine.job_id), None)
    query = (
        select(Worker, ~heard, held)
        .outerjoin(JobMachine, JobMachine.worker == Worker.name)
        .where(Worker.name > after if only is None else Worker.name == only)
        .group_by(Worker.name)
        .order_by(Worker.name)
        .limit(limit)
    )
    rows = session.execute(query.execution_options(populate_existing=True))
    return [(worker, silent, held or []) for worker, silent, held in rows]
