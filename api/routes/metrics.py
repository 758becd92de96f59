"""The metrics of a job, step by step, and their names."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from api import metric_pages
from api.deps import Db, ExistingJob
from api.metric_names import ESCAPES, KNOWN_NAMES, listed, unescaped
from api.tables import CONTENT, ChosenFormat, Rows, streamed
from calibrl.schemas import MAX_STEP, MetricName, MetricRow, Page
from jobs.repository import curves, metrics

PAGE = 1000  # default number of steps
router = APIRouter(prefix="/jobs/{job_id}/metrics", tags=["runs"])
Names = Annotated[
    str | None,
    Query(
        max_length=8000,
        description=f"Names of metrics, separated by commas. {ESCAPES} None: all. {KNOWN_NAMES}",
        examples=["reward/mean"],
    ),
]
After = Annotated[int, Query(ge=-1, le=MAX_STEP, description="Only steps after this one. -1: all.")]
Most = Annotated[
    int | None,
    Query(ge=1, le=5000, description="Maximum number of steps. None: 1000 as JSON, all in the other formats."),
]


@router.get("", response_model=Page[MetricRow], responses={200: {"content": CONTENT}})
def list_metrics(
    session: Db,
    job: ExistingJob,
    format: ChosenFormat,
    names: Names = None,
    after_step: After = -1,
    limit: Most = None,
) -> Page[MetricRow] | StreamingResponse:
    """Return metrics by step, ascending: pages as JSON, or all steps as CSV or Parquet with a column per metric.

    With `names`, only steps that have at least one of these metrics. For long curves, use `/v1/metrics`.
    """
    chosen = [unescaped(name) for name in listed(names)] if names is not None else None
    if format != "json":
        columns = sorted(set(chosen)) if chosen is not None else [row.name for row in curves.names(session, job.id)]
        shown = {name if name not in ("step", "ts") else f"metric/{name}": float for name in columns}
        table = _table(job.id, columns, chosen, after_step, limit)
        return streamed(format, f"{job.id}-metrics", {"step": int, "ts": datetime, **shown}, table)
    most = PAGE if limit is None else limit
    steps = metrics.page(session, job.id, names=chosen, after_step=after_step, limit=most + 1)
    rows = [MetricRow(step=step, ts=ts, values=values) for step, ts, values in steps[:most]]
    return Page(data=rows, has_more=len(steps) > most)


def _table(
    job_id: UUID, columns: list[str], names: list[str] | None, after_step: int, max_steps: int | None
) -> Iterator[Rows]:
    for page in metric_pages.pages(job_id, names, after_step, max_steps):
        yield [(step, ts, *map(values.get, columns)) for step, ts, values in page]


@router.get("/names")
def list_names(session: Db, job: ExistingJob) -> Page[MetricName]:
    """List the names of the metrics reported so far, each with its last value."""
    return Page(data=[MetricName.model_validate(row) for row in curves.names(session, job.id)], has_more=False)
