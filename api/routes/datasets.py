"""Datasets: upload, register, preview, download, delete."""

from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Body, Depends, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api import preconditions
from api.deps import CurrentCaller, Db, DbLater, Limit, note_download, page, read
from api.downloads import RESPONSES, send
from api.examples import DATASET_CHANGES, HUB_DATASETS
from api.idempotency import IdempotentRoute
from api.limits import ConcurrencyLimit
from api.preconditions import IfMatch
from api.uploads import keep, receive
from calibrl.schemas import (
    DataReport,
    Dataset,
    DatasetChanges,
    HubDataset,
    Page,
    PreviewRow,
    ReportRequest,
    Role,
    Slug,
    UploadOptions,
    UserName,
)
from jobs import models
from jobs.access.callers import Caller
from jobs.errors import Conflict, FieldError, Invalid
from jobs.files import datasets, reports
from jobs.files.datasets import IncomingFile
from jobs.repository import datasets as rows
from jobs.settings import get_settings

router = APIRouter(prefix="/datasets", tags=["data"], route_class=IdempotentRoute)
REPORTING = ConcurrencyLimit(2)
_FILE = {"schema": {"type": "string", "format": "binary"}}
_KINDS = ("application/octet-stream", "application/vnd.apache.parquet", "application/x-ndjson")
_BODY = {"required": True, "content": dict.fromkeys(_KINDS, _FILE)}
_SAME: dict[int | str, dict[str, Any]] = {200: {"model": Dataset, "description": "The project has it already"}}
Given = TypeVar("Given", UploadOptions, HubDataset)


def _existing_dataset(dataset_id: UUID, session: Db, caller: CurrentCaller) -> models.Dataset:
    return rows.get(session, dataset_id, caller.projects)


ExistingDataset = Annotated[models.Dataset, Depends(_existing_dataset, scope="function")]


def _with_project(given: Given, caller: Caller) -> Given:
    if "project" in given.model_fields_set:
        return given
    return given.model_copy(update={"project": caller.usual_project("project")})


@router.post("", status_code=201, responses=_SAME)
def register_dataset(
    dataset: Annotated[HubDataset, Body(openapi_examples=HUB_DATASETS)],
    session: Db,
    caller: CurrentCaller,
    response: Response,
) -> Dataset:
    """Register a dataset of the Hugging Face hub by its name. A worker downloads it when it runs a job."""
    dataset = _with_project(dataset, caller)
    caller.need_named(dataset.project, Role.MEMBER)
    kept, new = datasets.register(session, dataset, user=caller.user, visible_projects=caller.projects)
    return _answer(kept, new, response, caller)


@router.post("/upload", status_code=201, responses=_SAME, openapi_extra={"requestBody": _BODY})
async def upload_dataset(
    request: Request,
    options: Annotated[UploadOptions, Query()],
    begin: DbLater,
    caller: CurrentCaller,
    response: Response,
) -> Dataset:
    """Upload a Parquet or JSONL file: as the body, or as the part `file` of a form. The format is detected from the
    first bytes. Every row is checked. If any row is unusable, the whole file is refused and the faulty rows are named.

    Columns as in docs/how-to/data-formats.md. Other column names of the plain form are given as
    `?question=problem&answer=result`.
    Images are in the rows, as bytes or base64: paths are refused. The same content again returns the same dataset.
    """
    options = _with_project(options, caller)
    limit = get_settings().max_upload_bytes
    caller.need_named(options.project, Role.MEMBER)
    await read(request, lambda session: datasets.check_upload(session, options, caller.projects))
    with await run_in_threadpool(IncomingFile, get_settings()) as incoming:
        sent = await receive(request, incoming, limit)
        name = options.name or sent.name
        if name is None:
            raise Invalid("The dataset was not accepted.", (FieldError("name", "Field required"),))
        kept, new = await keep(request, begin, incoming, name, options)
        return _answer(kept, new, response, caller)


@router.get("")
def list_datasets(
    session: Db,
    caller: CurrentCaller,
    project: Annotated[Slug | None, Query(description="Project of the datasets.")] = None,
    user: Annotated[UserName | None, Query(description="User who added the dataset.")] = None,
    q: Annotated[
        str | None,
        Query(min_length=1, max_length=200, description="Text in the name, or the first characters of the id."),
    ] = None,
    after: Annotated[UUID | None, Query(description="Id of the last dataset of the previous page.")] = None,
    limit: Limit = 100,
) -> Page[Dataset]:
    """List the datasets of your projects, newest first."""
    found = rows.page(session, projects=caller.projects, project=project, user=user, q=q, after=after, limit=limit + 1)
    return page(found, limit, Dataset)


@router.get("/{dataset_id}")
def read_dataset(dataset: ExistingDataset, response: Response) -> Dataset:
    """Return one dataset. Its `ETag` is that of its name."""
    return _tagged(dataset, response)


@router.patch("/{dataset_id}")
def change_dataset(
    dataset_id: UUID,
    changes: Annotated[DatasetChanges, Body(openapi_examples=DATASET_CHANGES)],
    session: Db,
    caller: CurrentCaller,
    response: Response,
    if_match: IfMatch = None,
) -> Dataset:
    """Rename a dataset."""
    row = rows.lock(session, dataset_id, caller.projects)
    caller.need(row.project, Role.MEMBER)
    preconditions.check(if_match, row, preconditions.EDITED["dataset"])
    rows.rename(session, row, changes.name)
    return _tagged(row, response)


def _tagged(row: models.Dataset, response: Response) -> Dataset:
    dataset = Dataset.model_validate(row)
    preconditions.set_tag(response, dataset, preconditions.EDITED["dataset"])
    return dataset


@router.get("/{dataset_id}/preview")
def read_preview(session: Db, dataset: ExistingDataset) -> Page[PreviewRow]:
    """Return the first rows of an uploaded file, with small copies of their images."""
    _must_be_file(dataset)
    preview = [PreviewRow.model_validate(row) for row in rows.preview(session, dataset.id)]
    return Page(data=preview, has_more=(dataset.rows or 0) > len(preview))


@router.post("/{dataset_id}/report")
async def report_on_dataset(
    dataset_id: UUID, report_request: ReportRequest, request: Request, caller: CurrentCaller
) -> DataReport:
    """Report on the first rows of an uploaded file: sizes, duplicates, answers and experts, and warnings with remedies.
    Changes nothing. Reads 2,000 rows at most, fewer if they are large; at most two reports are made at the same
    time."""

    def load(session: Session) -> tuple[models.Dataset, models.Dataset | None]:
        against = report_request.against
        held_out = rows.get(session, against, caller.projects) if against else None
        return rows.get(session, dataset_id, caller.projects), held_out

    dataset, held_out = await read(request, load)
    with REPORTING.one():
        return await run_in_threadpool(reports.report, dataset, held_out, report_request)


@router.head("/{dataset_id}/content", include_in_schema=False)
@router.get("/{dataset_id}/content", response_class=Response, responses=RESPONSES)
async def download_dataset(request: Request, dataset_id: UUID, caller: CurrentCaller) -> Response:
    """Download the file as it was uploaded; byte ranges are supported."""

    def found(session: Session) -> models.Dataset:
        row = rows.get(session, dataset_id, caller.projects)
        note_download(session, request, caller, row.project)
        return row

    dataset = await read(request, found)
    _must_be_file(dataset)
    file = await run_in_threadpool(datasets.open_content, dataset)
    name = f"{dataset.name}.{dataset.format}"
    return send(request, file, name=name, size=dataset.bytes or 0, etag=str(dataset.sha256))


@router.delete("/{dataset_id}", status_code=204)
def delete_dataset(dataset: ExistingDataset, session: Db, caller: CurrentCaller, after: BackgroundTasks) -> None:
    """Delete a dataset. Refused while an unfinished job uses it. Trained models stay."""
    caller.need(dataset.project, Role.MEMBER)
    key = datasets.remove(session, dataset.id)
    if key is not None:
        after.add_task(datasets.storage().delete, key)  # after the commit: a row never names a deleted file


def _answer(dataset: models.Dataset, new: bool, response: Response, caller: Caller) -> Dataset:
    caller.changed(dataset.id)
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/v1/datasets/{dataset.id}"
    return Dataset.model_validate(dataset)


def _must_be_file(dataset: models.Dataset) -> None:
    if dataset.hub is not None:
        where = f"https://huggingface.co/datasets/{dataset.hub['hub']}"
        raise Conflict(f"Dataset {dataset.id} has no file in the service: its rows are at {where}.")
