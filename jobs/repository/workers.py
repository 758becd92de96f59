"""The slots that run jobs."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import case, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.errors import NotFound
from jobs.models import Worker


def register(session: Session, name: str, host: str, device: str) -> None:
    """Note that a worker has started, idle."""
    values: dict[str, Any] = {"host": host, "device": device, "status": "idle", "job_id": None}
    values["heartbeat_at"] = func.clock_timestamp()
    statement = insert(Worker).values(name=name, **values)
    session.execute(statement.on_conflict_do_update(index_elements=[Worker.name], set_=values))


def beat(session: Session, name: str, job_id: UUID | None) -> str:
    """Note that a worker lives and what it runs; its status: idle, busy, or stopping where it was told to.

    Raises:
        NotFound: no worker of this name is registered.
    """
    status = case((Worker.status == "stopping", "stopping"), else_="busy" if job_id else "idle")
    values = {"status": status, "job_id": job_id, "heartbeat_at": func.clock_timestamp()}
    found: str | None = session.scalar(
        update(Worker).where(Worker.name == name).values(values).returning(Worker.status)
    )
    if found is None:
        raise NotFound(f"There is no worker {name}.")
    return found


def mark_stopping(session: Session, name: str) -> None:
    """Note that a worker will take no further job; its job's next heartbeat says STOP."""
    session.execute(update(Worker).where(Worker.name == name).values(status="stopping"))


def remove(session: Session, name: str) -> None:
    """Forget a worker that has ended in order."""
    session.execute(delete(Worker).where(Worker.name == name))


def is_stopping(session: Session, name: str) -> bool:
    """Whether a worker was told to stop."""
    return session.scalar(select(Worker.status).where(Worker.name == name)) == "stopping"


def mark_lost(session: Session, seconds: float) -> int:
    """Mark the workers that have been silent for so long; how many that were."""
    silent = Worker.heartbeat_at < func.now() - timedelta(seconds=seconds)
    lost = update(Worker).where(silent, Worker.status != "lost").values(status="lost", job_id=None)
    return len(session.scalars(lost.returning(Worker.name)).all())


def idle_by_gpus(session: Session) -> dict[int, int]:
    """How many workers wait for a job, by the GPUs of their slot."""
    gpus = case((Worker.device.startswith("cpu"), 0), else_=1)
    query = select(gpus, func.count()).where(Worker.status == "idle").group_by(gpus)
    return dict(session.execute(query).all())


def page(session: Session, *, after: str, limit: int) -> list[Worker]:
    """Workers by name, from the one after `after` on."""
    return list(session.scalars(select(Worker).where(Worker.name > after).order_by(Worker.name).limit(limit)))
