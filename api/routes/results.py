"""Result files: every answer of an evaluation, every row of an audit."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from api.deps import CurrentCaller, Db, ExistingJob, note_download
from api.downloads import RESPONSES, send
from calibrl.schemas import Page, StoredFile
from jobs.errors import NotFound
from jobs.files import artifacts

router = APIRouter(prefix="/jobs/{job_id}/results", tags=["runs"])


@router.get("")
def list_results(job: ExistingJob) -> Page[StoredFile]:
    """List the result files of a job: the answers of an evaluation, the rows of an audit; a training job has none."""
    folder = artifacts.results_folder(job)
    return Page(data=artifacts.results(folder) if folder else [], has_more=False)


@router.head("/{name}", include_in_schema=False)
@router.get("/{name}", response_class=Response, responses=RESPONSES)
def download_result(
    request: Request,
    session: Db,
    caller: CurrentCaller,
    job: ExistingJob,
    name: Annotated[str, Path(max_length=1000)],
) -> Response:
    """Download one result file; byte ranges are supported."""
    note_download(session, request, caller, job.project)
    folder = artifacts.results_folder(job)
    if folder is None:
        raise NotFound(f"Job {job.id} has no results.")
    file = artifacts.pick(artifacts.results(folder), name)
    return send(request, artifacts.open_file(folder, file), name=file.name, size=file.bytes, etag=file.etag)
