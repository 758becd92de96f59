"""Attempts of a job with what they ran on, and the comparison of two jobs step by step."""

from typing import Annotated
from uuid import UUID

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session

from api.deps import CurrentCaller, Db, ExistingJob, existing_job, read
from calibrl.schemas import AttemptRecord, Page, SeriesComparison
from jobs.errors import FieldError, Invalid
from jobs.evaluations import series
from jobs.repository import jobs

router = APIRouter(prefix="/jobs/{job_id}", tags=["runs"])
COMPARING = CapacityLimiter(2)


@router.get("/attempts")
def list_attempts(session: Db, job: ExistingJob) -> Page[AttemptRecord]:
    """List the attempts of a job, each with what it ran on: code, packages, hardware, data, model and seeds."""
    rows = jobs.attempts(session, job.id)
    return Page(data=[AttemptRecord.model_validate(row) for row in rows], has_more=False)


@router.get("/series-comparison")
async def compare_series(
    job_id: UUID,
    request: Request,
    caller: CurrentCaller,
    other: Annotated[
        UUID | None, Query(description="Job to compare with. None: the one from which this job was made.")
    ] = None,
) -> SeriesComparison:
    """Compare the metrics of a job with those of another, step by step and bit for bit, without times and speeds. The
    other one is the first, this job the second. At most two comparisons are made at the same time."""

    def pair(session: Session) -> UUID:
        job = existing_job(job_id, session, caller)
        first = other or job.forked_from
        if first is None:
            fault = FieldError("other", "the job was not made from another one: name the job to compare with")
            raise Invalid("The series cannot be compared.", (fault,))
        return existing_job(first, session, caller).id

    first = await read(request, pair)
    return await to_thread.run_sync(series.compare_series, first, job_id, limiter=COMPARING)
