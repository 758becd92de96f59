"""The curves of a job."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import AfterStep, Db, ExistingJob, StepLimit
from jobs.repository import metrics
from jobs.schemas import MetricRow, Page

router = APIRouter(prefix="/jobs/{job_id}/metrics", tags=["runs"])
Names = Annotated[
    str | None, Query(max_length=8000, description="comma-separated; none: all", examples=["reward/mean"])
]


@router.get("")
def list_metrics(
    session: Db, job: ExistingJob, names: Names = None, after_step: AfterStep = 0, limit: StepLimit = 1000
) -> Page[MetricRow]:
    """Metrics by step, ascending. With `names`, only steps that have at least one of them."""
    chosen = [name.strip() for name in names.split(",")] if names is not None else None
    found = metrics.page(session, job.id, names=chosen, after_step=after_step, limit=limit + 1)
    rows = [MetricRow(step=step, ts=ts, values=values) for step, ts, values in found[:limit]]
    return Page(data=rows, has_more=len(found) > limit)
