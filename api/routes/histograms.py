"""The distributions that a job reports."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from api.bucket_width import Width, chosen_width
from api.deps import AfterStep, Db, ExistingJob, StepLimit, page
from calibrl.schemas import Histogram, Page
from jobs.repository import histograms

Points = Annotated[
    int | None, Query(ge=1, le=5000, description="Maximum number of histograms. Each is the sum over `width` steps.")
]
router = APIRouter(prefix="/jobs/{job_id}/histograms", tags=["runs"])


@router.get("")
def list_histograms(
    session: Db,
    job: ExistingJob,
    name: Annotated[str, Query(max_length=200, examples=["rareness"])],
    after_step: AfterStep = -1,
    limit: StepLimit = 1000,
    points: Points = None,
    width: Width = None,
) -> Page[Histogram]:
    """List one histogram over the steps, ascending.

    With `points`, at most that many histograms cover all steps after `after_step`: histograms of neighbouring steps
    are added up in buckets whose width is a power of two, as in `/v1/metrics`. Histograms whose edges differ from the
    bucket's last one are left out and counted.
    """
    if points is not None:
        return _merged(session, job.id, name, after_step + 1, points, width)
    rows = histograms.page(session, job.id, name=name, after_step=after_step, limit=limit + 1)
    return page(rows, limit, Histogram)


def _merged(session: Session, job_id: UUID, name: str, first: int, points: int, width: int | None) -> Page[Histogram]:
    last = max(histograms.last_step(session, job_id, name) or 0, first)
    width = chosen_width(width, first, last, points)
    rows = histograms.merged(session, job_id, name, width=width, first=first, last=last)
    return Page(data=[Histogram(name=name, width=width, **row._mapping) for row in rows], has_more=False)
