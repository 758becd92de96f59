"""Attempts of jobs: their return after a lease that ended too early, and the work that they saved."""

from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from jobs.models import Attempt, Checkpoint, Job
from jobs.repository import jobs


def last_worker(session: Session, job: Job) -> str:
    """Return the worker of the last attempt of a job."""
    number = (Attempt.job_id == job.id, Attempt.number == job.attempt)
    return session.scalars(select(Attempt.worker).where(*number)).one()


def restore(session: Session, job: Job, token: UUID, worker: str, seconds: float) -> None:
    """Return a locked job to its last attempt, as if its lease had not ended."""
    number = (Attempt.job_id == job.id, Attempt.number == job.attempt)
    values = {"status": None, "reason": None, "message": None, "finished_at": None, "lost_steps": 0}
    session.execute(update(Attempt).where(*number).values(values))
    job.lease_token, job.worker = token, worker
    jobs.renew(job, seconds)


def set_saved(session: Session, job_id: UUID, attempt: int) -> None:
    """Record that an attempt has saved a checkpoint after its start."""
    session.execute(update(Job).where(Job.id == job_id).values(saved_attempt=attempt))


def set_lost_steps(session: Session, job: Job) -> int:
    """Record the steps of the present attempt of a locked job after its last checkpoint, and return their number."""
    saved = session.scalar(select(func.max(Checkpoint.step)).where(Checkpoint.job_id == job.id)) or 0
    lost = max(0, job.step - saved)
    # An attempt whose trainer reported nothing took no step: those are of attempts before, and counted with them.
    began = (Attempt.job_id == job.id, Attempt.number == job.attempt, Attempt.events_offset > 0)
    counted = update(Attempt).where(*began).values(lost_steps=lost).returning(Attempt.number)
    return lost if session.scalar(counted) is not None else 0
