"""Exports of a job's metrics for other tools."""

from collections.abc import Iterator

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from api import metric_pages, tensorboard
from api.deps import ExistingJob
from api.tables import attachment
from jobs import models

MEDIA_TYPE = "application/octet-stream"
router = APIRouter(prefix="/jobs/{job_id}/exports", tags=["runs"])
CONTENT = {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}


@router.get("/tensorboard", response_class=StreamingResponse, responses={200: {"content": CONTENT}})
def export_tensorboard(job: ExistingJob) -> StreamingResponse:
    """Download all metrics so far as a TensorBoard event file."""
    name = f"events.out.tfevents.{job.created_at.timestamp():.0f}.{job.id}"
    return attachment(name, MEDIA_TYPE, _events(job))


def _events(job: models.Job) -> Iterator[bytes]:
    yield tensorboard.header(job.created_at)
    for page in metric_pages.pages(job.id):
        yield b"".join(tensorboard.step(*row) for row in page)
