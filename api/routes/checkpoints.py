"""The checkpoints that a job keeps, and their files."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from api.deps import CurrentCaller, Db, ExistingJob, note_download
from api.downloads import ARCHIVE, RESPONSES, archive, send
from calibrl.schemas import MAX_STEP, Checkpoint, CheckpointFiles, Page
from jobs.files import artifacts
from jobs.repository import checkpoints

router = APIRouter(prefix="/jobs/{job_id}/checkpoints", tags=["runs"])
Step = Annotated[int, Path(ge=0, le=MAX_STEP, description="Step of the checkpoint.")]


@router.get("")
def list_checkpoints(session: Db, job: ExistingJob) -> Page[Checkpoint]:
    """List all checkpoints by step; the job's `checkpoints` settings bound their number."""
    rows = checkpoints.of_job(session, job.id)
    return Page(data=[Checkpoint.model_validate(row) for row in rows], has_more=False)


@router.get("/{step}")
def read_checkpoint(session: Db, job: ExistingJob, step: Step) -> CheckpointFiles:
    """Return one checkpoint and its files: a model for `from_pretrained`, and the state to resume from."""
    row = checkpoints.get(session, job.id, step)
    files = artifacts.listing(artifacts.checkpoint_folder(row))
    return CheckpointFiles(**Checkpoint.model_validate(row).model_dump(), files=files)


@router.head("/{step}/files/{name:path}", include_in_schema=False)
@router.get("/{step}/files/{name:path}", response_class=Response, responses=RESPONSES)
def download_checkpoint_file(
    request: Request,
    session: Db,
    caller: CurrentCaller,
    job: ExistingJob,
    step: Step,
    name: Annotated[str, Path(max_length=1000)],
) -> Response:
    """Download one file of a checkpoint; byte ranges are supported."""
    note_download(session, request, caller, job.project)
    folder = artifacts.checkpoint_folder(checkpoints.get(session, job.id, step))
    file = artifacts.pick(artifacts.listing(folder), name)
    return send(request, artifacts.open_file(folder, file), name=file.name, size=file.bytes, etag=file.etag)


@router.get("/{step}/archive", response_class=Response, responses=ARCHIVE)
def download_checkpoint(request: Request, session: Db, caller: CurrentCaller, job: ExistingJob, step: Step) -> Response:
    """Download all files of a checkpoint as one tar file."""
    note_download(session, request, caller, job.project)
    folder = artifacts.checkpoint_folder(checkpoints.get(session, job.id, step))
    return archive(folder, artifacts.listing(folder), f"{job.id}-step-{step}.tar")
