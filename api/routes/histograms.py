"""The distributions that a job reports."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import AfterStep, Db, ExistingJob, StepLimit, page
from jobs.repository import histograms
from jobs.schemas import Histogram, Page

router = APIRouter(prefix="/jobs/{job_id}/histograms", tags=["runs"])


@router.get("")
def list_histograms(
    session: Db,
    job: ExistingJob,
    name: Annotated[str, Query(max_length=200, examples=["rareness"])],
    after_step: AfterStep = 0,
    limit: StepLimit = 1000,
) -> Page[Histogram]:
    """One histogram over the steps, ascending."""
    found = histograms.page(session, job.id, name=name, after_step=after_step, limit=limit + 1)
    return page(found, limit, Histogram)
