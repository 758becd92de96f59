"""Conventions of OpenAI's client on its paths: the shape of errors and lists, and the project in a header."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import Header
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from calibrl.schemas import Role, Slug
from calibrl.schemas.openai import Named, OpenAIList
from jobs.access.callers import Caller
from jobs.errors import FieldError, Invalid, NotFound
from jobs.openai.names import Kind, uuid_of
from jobs.postgres_text import storable
from jobs.repository import projects

OWN_PATHS = ("/v1/files", "/v1/fine_tuning", "/v1/models")
# Paths of OpenAI's client that this service lacks. The client shows the message of an error only in OpenAI's shape.
OTHER_PATHS = (
    *("/v1/assistants", "/v1/audio", "/v1/batches", "/v1/chat", "/v1/completions", "/v1/containers"),
    *("/v1/conversations", "/v1/embeddings", "/v1/evals", "/v1/images", "/v1/moderations", "/v1/realtime"),
    *("/v1/responses", "/v1/threads", "/v1/uploads", "/v1/vector_stores", "/v1/videos"),
)
PROJECT = "OpenAI-Project"
# OpenAI's client repeats requests after 409. This helps only while the same request is in progress.
STATUS = {409: 400, 422: 400}
IN_FLIGHT = "in_flight"
CODES = {401: "invalid_api_key", 403: "insufficient_permissions", 404: "not_found", 429: "rate_limit_exceeded"}

Project = Annotated[
    Slug | None,
    Header(
        alias=PROJECT, description="Project of the request. None: `default`, or the only project that you belong to."
    ),
]
T = TypeVar("T", bound=Named)


class OpenAIFault(BaseModel):
    """The error object of OpenAI's API."""

    message: str
    type: str = Field(examples=["invalid_request_error"])
    param: str | None = Field(description="Field with the error.", examples=["training_file"])
    code: str | None = Field(examples=["invalid_api_key"])


class OpenAIError(BaseModel):
    """An error in the format of OpenAI's API."""

    error: OpenAIFault


_JSON = {"application/json": {"schema": {"$ref": "#/components/schemas/OpenAIError"}}}
RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {"description": "An error in OpenAI's shape", "content": _JSON}
}


def speaks(path: str) -> bool:
    """Return True if the path belongs to OpenAI's API, also to a part that this service lacks."""
    return any(path == known or path.startswith(f"{known}/") for known in (*OWN_PATHS, *OTHER_PATHS))


def error(
    status: int, detail: str, *, code: str | None, errors: Sequence[FieldError], headers: Mapping[str, str] | None
) -> JSONResponse:
    """Return an error in OpenAI's format. Its message names every field, because `param` has room for one only."""
    faults = "; ".join(f"{fault.field}: {fault.message}" for fault in errors)
    kind = "server_error" if status >= 500 else "requests" if status == 429 else "invalid_request_error"
    fault = OpenAIFault(
        message=f"{detail} {faults}" if faults else detail,
        type=kind,
        param=errors[0].field if errors else None,
        code=CODES.get(status, code),
    )
    return JSONResponse(
        storable(OpenAIError(error=fault).model_dump()),
        status if code == IN_FLIGHT else STATUS.get(status, status),
        headers,
        "application/json",
    )


def listed(data: list[T], has_more: bool) -> OpenAIList[T]:
    """Return a page of a list."""
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return OpenAIList(data=data, has_more=has_more, first_id=first, last_id=last)


def visible(session: Session, caller: Caller, project: str | None) -> str | None:
    """Return the project in the header, if the header is present.

    Raises:
        NotFound: it does not exist, or the caller does not see it.
    """
    if project is None:
        return None
    caller.need(project, Role.VIEWER)
    return projects.get(session, project).slug


def chosen(caller: Caller, project: str | None) -> str:
    """Return the project for a new object: from the header, else `default`, else the caller's only project.

    Raises:
        NotFound: the caller does not see it.
        Invalid: the caller belongs to several projects, or to none, and has named none.
    """
    if project is None:
        return caller.usual_project(PROJECT)
    caller.need(project, Role.VIEWER)
    return project


def after_id(kind: Kind, text: str | None) -> UUID | None:
    """Return the id after which a page starts.

    Raises:
        Invalid: `after` is not an id.
    """
    try:
        return None if text is None else uuid_of(kind, text)
    except NotFound as error:
        raise no_start(error.detail) from None


def no_start(text: str) -> Invalid:
    """Return the error for a page that starts after an unknown id."""
    return Invalid("The start of the page does not exist.", (FieldError("after", text),))
