"""The machines of leased jobs: their parts, and how far each is."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from calibrl.schemas import Reason
from jobs.models import Job, JobMachine, PartState


def add(session: Session, job: Job, token: UUID, workers: Sequence[str], seconds: float) -> None:
    """Add the parts of a locked job that is about to run on these workers, the main machine first. The others must take
    their parts within `seconds`."""
    ends = func.clock_timestamp() + timedelta(seconds=seconds)
    for rank, worker in enumerate(workers):
        part = JobMachine(job_id=job.id, rank=rank, worker=worker, lease_token=token)
        part.state, part.expires_at = (PartState.CALLED, ends) if rank else (PartState.PREPARING, None)
        session.add(part)
    session.flush()


def remove(session: Session, job_id: UUID) -> None:
    """Remove the parts of a locked job, whose lease has ended."""
    session.execute(delete(JobMachine).where(JobMachine.job_id == job_id))


def lock_called(session: Session, worker: str) -> JobMachine | None:
    """Lock and return the oldest part that a worker has not taken yet, or None."""
    query = select(JobMachine).where(JobMachine.worker == worker, JobMachine.state == PartState.CALLED)
    return session.scalar(query.order_by(JobMachine.state_at).limit(1).with_for_update(skip_locked=True))


def lock(session: Session, job_id: UUID, rank: int, token: UUID) -> JobMachine | None:
    """Lock and return a part while its lease lasts, else return None."""
    key = (JobMachine.job_id == job_id, JobMachine.rank == rank, JobMachine.lease_token == token)
    query = select(JobMachine).where(*key).with_for_update()
    return session.scalar(query.execution_options(populate_existing=True))


def of_job(session: Session, job_id: UUID) -> list[JobMachine]:
    """Return the parts of a job by rank; none if the job is not leased."""
    query = select(JobMachine).where(JobMachine.job_id == job_id).order_by(JobMachine.rank)
    return list(session.scalars(query.execution_options(populate_existing=True)))


def called(session: Session) -> list[str]:
    """Return the workers that have not taken their parts yet, each once per part."""
    return list(session.scalars(select(JobMachine.worker).where(JobMachine.state == PartState.CALLED)))


def renew(part: JobMachine, seconds: float) -> None:
    """Extend the time of a locked part to `seconds` from now."""
    part.expires_at = func.clock_timestamp() + timedelta(seconds=seconds)


def set_state(part: JobMachine, state: PartState, reason: Reason | None = None, message: str | None = None) -> None:
    """Change the state of a locked part. `reason`, `message`: why its trainer failed."""
    part.state, part.state_at = state, func.clock_timestamp()
    part.reason, part.message = reason, message


def silent(session: Session, job_id: UUID) -> list[str]:
    """Return the workers of a job whose time has run out."""
    ends = func.coalesce(JobMachine.expires_at, Job.lease_expires_at)
    query = select(JobMachine.worker).join(Job, Job.id == JobMachine.job_id)
    return list(session.scalars(query.where(JobMachine.job_id == job_id, ends < func.now()).order_by(JobMachine.rank)))
