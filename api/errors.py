"""Every error as an RFC 9457 problem document (on OpenAI's paths in OpenAI's shape), in one place."""

from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, TypeAdapter
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.types import Scope

from api import openai
from api.http_methods import allowed
from api.validation_errors import field_errors
from calibrl.schemas.field_names import Schema
from jobs.db import is_disk_full
from jobs.errors import FieldError, Invalid, ServiceError
from jobs.postgres_text import storable

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = "5"
MOST_ERRORS = 100  # maximum number of invalid fields listed in an answer; the others are counted

# Errors that SQLAlchemy raises while the database is unreachable.
AWAY: tuple[type[Exception], ...] = (OperationalError, InterfaceError, InternalError, PoolTimeout)

log = structlog.get_logger()
_body_schemas: dict[Any, Schema] = {}  # by endpoint; routes cannot be keys


class ProblemField(BaseModel):
    """The fault of one field."""

    field: str = Field(examples=["algorithm.negative_slope"])
    message: str = Field(examples=["Must be at most 1"])


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field("about:blank", examples=["urn:calibrl:invalid"])
    title: str = Field(examples=["Invalid request"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["1 field can't be accepted."])
    instance: str = Field(description="Path of the request.", examples=["/v1/jobs"])
    errors: list[ProblemField] = Field(default_factory=list, description="Fields with errors.")
    request_id: str = Field(description="Request id, as in the X-Request-ID header and in the log of the service.")


_SCHEMA = {"$ref": "#/components/schemas/Problem"}
RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {"description": "A problem document", "content": {MEDIA_TYPE: {"schema": _SCHEMA}}}
}


def problem(
    scope: Scope,
    status: int,
    detail: str,
    *,
    type: str = "about:blank",
    title: str | None = None,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return a problem document for this request, or an OpenAI error object on the OpenAI paths."""
    if openai.speaks(scope["path"]):
        code = type.rpartition(":")[2].replace("-", "_") if type.startswith("urn:") else None
        return openai.error(status, detail, code=code, errors=errors, headers=headers)
    document = Problem(
        type=type,
        title=title or HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=scope["path"],
        errors=[ProblemField(field=error.field, message=error.message) for error in errors],
        request_id=scope["state"]["request_id"],
    )
    return JSONResponse(storable(document.model_dump()), status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Register the error handlers of the app, and add the schemas in `RESPONSES` to its OpenAPI document."""
    describe = app.openapi

    def with_problem() -> dict[str, Any]:
        document = describe()
        for model in (Problem, openai.OpenAIError):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            document["components"]["schemas"] |= {**schema.pop("$defs"), model.__name__: schema}
        return document

    app.openapi = with_problem  # type: ignore[method-assign]
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    for away in AWAY:
        app.add_exception_handler(away, _database_away)


async def _service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    return _answer(request, error)


def _answer(request: Request, error: ServiceError) -> JSONResponse:
    type = f"urn:calibrl:{error.code}"
    return problem(request.scope, error.status, error.detail, type=type, title=error.title, errors=error.errors)


def _validation_error(request: Request, error: Exception) -> JSONResponse:
    # Not async: it runs in a thread, because a body can have thousands of errors.
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    first: dict[str, Any] = faults[0]
    if first["type"] == "json_invalid":
        detail = f"The body is not JSON: {first['ctx']['error']} at character {first['loc'][1]}."
        return problem(request.scope, 400, detail)
    if isinstance(error.body, bytes):
        return problem(request.scope, 415, "Send the body as JSON, with Content-Type: application/json.")
    errors = field_errors(faults[:MOST_ERRORS], error.body, partial(_body_schema, request.scope["route"]))
    more = len(faults) - MOST_ERRORS
    count = f"{len(errors) + max(more, 0)} field{'s' if len(errors) > 1 else ''}"
    named = f"; the first {len(errors)} are listed" if more > 0 else ""
    return _answer(request, Invalid(f"{count} can't be accepted{named}.", tuple(errors)))


def _body_schema(route: APIRoute) -> Schema:
    if route.endpoint not in _body_schemas:
        body: Any = route.body_field.field_info.annotation if route.body_field else None
        _body_schemas[route.endpoint] = TypeAdapter(body).json_schema()
    return _body_schemas[route.endpoint]


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    details = {
        404: f"Not found: {request.url.path}.",
        405: f"{request.url.path} does not take {request.method}.",
    }
    detail = details.get(error.status_code, str(error.detail))
    headers = {"Allow": ", ".join(allowed(request.scope))} if error.status_code == 405 else error.headers
    return problem(request.scope, error.status_code, detail, headers=headers)


async def _database_away(request: Request, error: Exception) -> JSONResponse:
    return database_away(request.scope, error)


def database_away(scope: Scope, error: Exception) -> JSONResponse:
    """Return the answer while PostgreSQL is unreachable, or cannot write."""
    full = is_disk_full(error)
    log.warning("disk of the database full" if full else "database away", error=str(error).splitlines()[0])
    detail = "The database is unreachable; try again."
    if full:
        detail = "The disk of the database is full: nothing can be changed until an admin has freed space on it."
    return problem(scope, 503, detail, headers={"Retry-After": RETRY_SECONDS})
