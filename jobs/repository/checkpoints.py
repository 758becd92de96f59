"""Checkpoints that jobs keep."""

from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from calibrl.schemas import CheckpointChoice
from jobs.errors import NotFound
from jobs.models import Checkpoint
from jobs.repository import feed


def record(
    session: Session, job_id: UUID, step: int, path: str, best: bool, metrics: dict[str, Any], removed: list[str]
) -> None:
    """Record a checkpoint and delete the paths in `removed`. `best` moves the mark to this checkpoint."""
    if best:
        session.execute(update(Checkpoint).where(Checkpoint.job_id == job_id).values(best=False))
    values = {"path": path, "best": best, "metrics": metrics}
    statement = insert(Checkpoint).values(job_id=job_id, step=step, **values)
    session.execute(statement.on_conflict_do_update(index_elements=[Checkpoint.job_id, Checkpoint.step], set_=values))
    session.execute(delete(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.path.in_(removed)))
    feed.changes(session, job_id).checkpoints = True


def forget_elsewhere(session: Session, job_id: UUID, run_dir: Path) -> None:
    """Delete the checkpoints of a job outside this folder."""
    inside = Checkpoint.path.startswith(f"{run_dir}/", autoescape=True)
    session.execute(delete(Checkpoint).where(Checkpoint.job_id == job_id, ~inside))
    feed.changes(session, job_id).checkpoints = True


def of_job(session: Session, job_id: UUID) -> list[Checkpoint]:
    """Return the checkpoints of a job by step. Their number is limited by the settings of the job."""
    return list(session.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step)))


def get(session: Session, job_id: UUID, step: int) -> Checkpoint:
    """Return a checkpoint of a job by its step.

    Raises:
        NotFound: the job keeps no checkpoint of this step.
    """
    row = session.get(Checkpoint, (job_id, step))
    if row is None:
        kept = ", ".join(str(one.step) for one in of_job(session, job_id))
        which = f"only of the steps {kept}" if kept else "and none of another step"
        raise NotFound(f"Job {job_id} keeps no checkpoint of step {step}, {which}.")
    return row


def choose(session: Session, job_id: UUID, which: CheckpointChoice) -> Checkpoint | None:
    """Return the checkpoint from which another job starts: of a step; the best, or the latest if none is marked
    best."""
    query = select(Checkpoint).where(Checkpoint.job_id == job_id)
    if isinstance(which, int):
        return session.scalar(query.where(Checkpoint.step == which))
    order = [Checkpoint.best.desc()] if which == "best" else []
    return session.scalar(query.order_by(*order, Checkpoint.step.desc()).limit(1))
