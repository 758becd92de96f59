"""Machines that run jobs: list, drain, undrain."""

from uuid import UUID

from sqlalchemy.orm import Session

from calibrl.schemas import Worker, WorkerStatus
from jobs import lifecycle, models
from jobs.errors import Conflict
from jobs.repository import workers
from jobs.settings import get_settings

_TAKING_NONE = (WorkerStatus.DRAINING, WorkerStatus.STOPPING)


def page(session: Session, *, after: str, limit: int) -> list[Worker]:
    """Return machines by name, starting after `after`."""
    rows = workers.page(session, after=after, limit=limit, silent_seconds=get_settings().lease_seconds)
    return [_record(worker, silent, held) for worker, silent, held in rows]


def drain(session: Session, name: str, *, now: bool) -> Worker:
    """Drain a machine: it takes no more jobs. With `now`, it also stops its jobs at a checkpoint and gives them back.

    Raises:
        NotFound: no such machine.
        Conflict: the machine is offline, or already drained.
    """
    worker = workers.get(session, name)
    to = WorkerStatus.STOPPING if now else WorkerStatus.DRAINING
    if worker.status is WorkerStatus.OFFLINE or worker.status is to:
        raise Conflict(f"Worker {name} is already {worker.status}.")
    workers.set_status(session, name, to, drained=True)
    return _read(session, name)


def undrain(session: Session, name: str) -> Worker:
    """Let a drained machine take jobs again.

    Raises:
        NotFound: no such machine.
        Conflict: the machine is not drained.
    """
    worker = workers.get(session, name)
    if not worker.drained or worker.status not in _TAKING_NONE:
        raise Conflict(f"Worker {name} is {worker.status}, not drained.")
    workers.set_status(session, name, WorkerStatus.ONLINE, drained=False)
    lifecycle.plan_after_commit(session)
    return _read(session, name)


def remove(session: Session, name: str) -> None:
    """Remove a machine that is lost or offline and runs no job.

    Raises:
        NotFound: no such machine.
        Conflict: the machine takes jobs, or runs one.
    """
    workers.lock(session, name)
    machine = _read(session, name)
    if machine.status not in (WorkerStatus.LOST, WorkerStatus.OFFLINE):
        raise Conflict(f"Machine {name} is {machine.status}: stop its worker first.")
    if machine.jobs:
        raise Conflict(f"Machine {name} still has job {machine.jobs[0]}: wait until the job has left it.")
    workers.remove(session, name)


def _read(session: Session, name: str) -> Worker:
    (found,) = workers.page(session, only=name, limit=1, silent_seconds=get_settings().lease_seconds)
    return _record(*found)


def _record(worker: models.Worker, silent: bool, job_ids: list[UUID]) -> Worker:
    ended = worker.status is WorkerStatus.OFFLINE
    return Worker(
        name=worker.name,
        host=worker.host,
        labels=worker.labels,
        versions=worker.versions,
        status=WorkerStatus.LOST if silent and not ended else worker.status,
        cpu_slots=worker.cpu_slots,
        gpus=worker.gpus,
        jobs=job_ids,
        heartbeat_at=worker.heartbeat_at,
    )
