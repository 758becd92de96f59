"""The checkpoints that a job keeps."""

from fastapi import APIRouter

from api.deps import Db, ExistingJob
from jobs.repository import checkpoints
from jobs.schemas import Checkpoint, Page

router = APIRouter(prefix="/jobs/{job_id}/checkpoints", tags=["runs"])


@router.get("")
def list_checkpoints(session: Db, job: ExistingJob) -> Page[Checkpoint]:
    """All of them by step; the job's `checkpoints` settings keep them few."""
    found = checkpoints.of_job(session, job.id)
    return Page(data=[Checkpoint.model_validate(row) for row in found], has_more=False)
