"""Datasets in the form of OpenAI's files API."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, BackgroundTasks, Depends, Query, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api import openai
from api.deps import CurrentCaller, Db, DbLater, note_download, read
from api.downloads import RESPONSES, send
from api.idempotency import IdempotentRoute
from api.openai import after_id, listed
from api.uploads import keep, receive
from calibrl.schemas import Role, UploadOptions
from calibrl.schemas.openai import FileDeleted, FileObject, OpenAIList
from jobs import models
from jobs.access.callers import Caller
from jobs.errors import FieldError, Invalid, NotFound
from jobs.files import datasets
from jobs.files.datasets import IncomingFile
from jobs.openai.names import not_found, uuid_of
from jobs.openai.objects import file_object
from jobs.repository import datasets as rows
from jobs.settings import get_settings

router = APIRouter(prefix="/files", tags=["OpenAI"], responses=openai.RESPONSES, route_class=IdempotentRoute)
PURPOSE = "fine-tune"
_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"const": PURPOSE}},
    "required": ["file", "purpose"],
}
_BODY = {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}


def _existing_file(file_id: str, session: Db, caller: CurrentCaller) -> models.Dataset:
    return _found(session, file_id, caller)


def _found(session: Session, file_id: str, caller: Caller) -> models.Dataset:
    try:
        row = rows.get(session, uuid_of("file", file_id), caller.projects)
    except NotFound:
        raise not_found("file", file_id) from None
    if row.hub is not None:
        raise not_found("file", file_id)
    return row


ExistingFile = Annotated[models.Dataset, Depends(_existing_file, scope="function")]


@router.post("", openapi_extra={"requestBody": _BODY})
async def create_file(
    request: Request, begin: DbLater, caller: CurrentCaller, project: openai.Project = None
) -> FileObject:
    """Upload a file to fine-tune with, JSONL or Parquet: OpenAI chats or another form of docs/how-to/data-formats.md.

    Every row is checked. The same content again in a project returns the existing file.
    """
    slug = openai.chosen(caller, project)
    caller.need(slug, Role.MEMBER)
    options = UploadOptions(project=slug)
    await read(request, lambda session: datasets.check_upload(session, options, caller.projects))
    if not request.headers.get("Content-Type", "").lower().startswith("multipart/form-data"):
        raise Invalid("The file was not accepted.", (FieldError("file", "send a form with `file` and `purpose`"),))
    with await run_in_threadpool(IncomingFile, get_settings()) as incoming:
        sent = await receive(request, incoming, get_settings().max_upload_bytes, fields=("purpose",))
        if sent.fields.get("purpose") != PURPOSE:
            raise Invalid("The file was not accepted.", (FieldError("purpose", f"must be {PURPOSE}"),))
        dataset, _ = await keep(request, begin, incoming, sent.name or "upload", options)
        return file_object(dataset)


@router.get("")
def list_files(
    session: Db,
    caller: CurrentCaller,
    project: openai.Project = None,
    after: Annotated[str | None, Query(description="Id of the last file of the previous page.")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
    purpose: Annotated[str | None, Query(description=f"Purpose of the files. All files have {PURPOSE}.")] = None,
) -> OpenAIList[FileObject]:
    """List the files of your projects, or of the project in the header."""
    slug = openai.visible(session, caller, project)
    page = rows.page(
        session,
        projects=caller.projects,
        project=slug,
        after=after_id("file", after),
        limit=limit + 1,
        files=True,
        oldest_first=order == "asc",
    )
    shown = page[:limit] if purpose in (None, "", PURPOSE) else []
    return listed([file_object(one) for one in shown], bool(shown) and len(page) > limit)


@router.get("/{file_id}")
def read_file(file: ExistingFile) -> FileObject:
    """Return one file."""
    return file_object(file)


@router.delete("/{file_id}")
def delete_file(file: ExistingFile, session: Db, caller: CurrentCaller, after: BackgroundTasks) -> FileDeleted:
    """Delete a file. Refused while an unfinished job uses it."""
    caller.need(file.project, Role.MEMBER)
    deleted = FileDeleted(id=file_object(file).id)
    if (key := datasets.remove(session, file.id)) is not None:
        after.add_task(datasets.storage().delete, key)  # after the commit: a row never names a deleted file
    return deleted


@router.get("/{file_id}/content", response_class=Response, responses=RESPONSES)
async def download_file(request: Request, file_id: str, caller: CurrentCaller) -> Response:
    """Download the file as it was uploaded; byte ranges are supported."""

    def found(session: Session) -> models.Dataset:
        row = _found(session, file_id, caller)
        note_download(session, request, caller, row.project)
        return row

    file = await read(request, found)
    content = await run_in_threadpool(datasets.open_content, file)
    name = file_object(file).filename
    return send(request, content, name=name, size=file.bytes or 0, etag=str(file.sha256))
