"""Dependencies of endpoints: the caller, a session, a job the caller can see or change, the bounds of a page."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any, TypeVar
from uuid import UUID

import structlog
from fastapi import Depends, Query, Request
from fastapi.concurrency import contextmanager_in_threadpool, run_in_threadpool
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from api import idempotency
from api.middleware import changes, route_path
from calibrl.schemas import MAX_STEP, Page, Record, Role
from jobs import models
from jobs.access.callers import Caller
from jobs.db import is_disk_full, session_scope
from jobs.postgres_text import storable
from jobs.repository import audit, jobs, studies

log = structlog.get_logger()
R = TypeVar("R", bound=Record)
T = TypeVar("T")
V1 = "/v1"  # prefix that the path of a route does not contain
MAX_ID = 2**63 - 1
NOTED_RANGE = 100  # characters of the range of a download in the audit log


# Maximum number of the engine's connections that requests hold at the same time. With more, requests that wait for a
# connection would occupy the threads that the requests with a connection need to finish.
SESSIONS = 14


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller  # set by `RequestChecks`
    return caller


CurrentCaller = Annotated[Caller, Depends(_caller)]


@asynccontextmanager
async def _transaction(request: Request) -> AsyncIterator[Session]:
    """Open the request's transaction; the audit log is written in the same transaction as the change."""
    async with request.app.state.sessions, contextmanager_in_threadpool(session_scope()) as session:
        if idempotency.has_key(request):
            await run_in_threadpool(idempotency.claim, request, session)
        yield session
        if changes(request.method, route_path(request.scope)):
            _note(session, request, request.state.caller)


async def _session(request: Request) -> AsyncIterator[Session]:
    async with _transaction(request) as session:
        yield session


async def _session_later(request: Request) -> AsyncIterator[Callable[[], Awaitable[Session]]]:
    async with AsyncExitStack() as stack:
        yield lambda: stack.enter_async_context(_transaction(request))


async def read(request: Request, query: Callable[[Session], T]) -> T:
    """Run one read in a short session, for an endpoint that must not hold a session during its later work."""
    async with request.app.state.sessions, contextmanager_in_threadpool(session_scope()) as session:
        return await run_in_threadpool(query, session)


def note_download(session: Session, request: Request, caller: Caller, project: str) -> None:
    """Record the download of a file, or of a part of it. Without space in the database, the log has it instead."""
    if request.method != "GET":
        return
    caller.project = project
    asked = request.headers.get("Range")
    after = None if asked is None else {"range": storable(asked[:NOTED_RANGE])}
    try:
        with session.begin_nested():
            _note(session, request, caller, after=after)
    except DBAPIError as error:
        if not is_disk_full(error):
            raise
        log.error("download not in the audit log: no disk space", path=request.url.path, after=after)


def _note(session: Session, request: Request, caller: Caller, *, after: dict[str, Any] | None = None) -> None:
    change = asdict(caller.change) if caller.change else {"after": after}
    audit.add(
        session,
        user=caller.user,
        key_id=caller.key_id,
        action=f"{request.method} {V1}{request.scope['route'].path}",
        path=request.url.path,
        project=caller.project,
        request_id=request.state.request_id,
        **change,
    )


# scope="function": the commit comes before the answer, so that no client gets a 201 for a job that was not committed.
Db = Annotated[Session, Depends(_session, scope="function")]
# The same, but the endpoint opens the transaction: for endpoints that first receive an upload, which can be slow.
DbLater = Annotated[Callable[[], Awaitable[Session]], Depends(_session_later, scope="function")]


def existing_job(job_id: UUID, session: Db, caller: CurrentCaller) -> models.Job:
    """Return a job that the caller can see.

    Raises:
        NotFound: there is no such job, or the caller cannot see it.
    """
    job = jobs.get(session, job_id)
    if not caller.sees(job.project):
        raise jobs.no_such(job_id)
    return job


ExistingJob = Annotated[models.Job, Depends(existing_job, scope="function")]


def existing_study(study_id: UUID, session: Db, caller: CurrentCaller) -> models.Study:
    """Return a study that the caller can see.

    Raises:
        NotFound: there is no such study, or the caller cannot see it.
    """
    study = studies.get(session, study_id)
    if not caller.sees(study.project):
        raise studies.no_such(study_id)
    return study


ExistingStudy = Annotated[models.Study, Depends(existing_study, scope="function")]


def _own_study(study: ExistingStudy, caller: CurrentCaller) -> UUID:
    caller.need(study.project, Role.MEMBER)
    return study.id


WritableStudy = Annotated[UUID, Depends(_own_study, scope="function")]


def _own_job(job: ExistingJob, caller: CurrentCaller) -> UUID:
    caller.need(job.project, Role.MEMBER)
    return job.id


WritableJob = Annotated[UUID, Depends(_own_job, scope="function")]


def _admin(caller: CurrentCaller) -> Caller:
    caller.need_admin()
    return caller


Admin = Annotated[Caller, Depends(_admin)]
Limit = Annotated[int, Query(ge=1, le=1000, description="Maximum number of items per page.")]
StepLimit = Annotated[int, Query(ge=1, le=5000, description="Maximum number of items per page.")]
AfterId = Annotated[int, Query(ge=0, le=MAX_ID, description="Id of the last item of the previous page.")]
AfterStep = Annotated[int, Query(ge=-1, le=MAX_STEP, description="Only steps after this one. -1: all.")]


def page(rows: Sequence[Any], limit: int, record: type[R]) -> Page[R]:
    """Return a page of records. `rows` has one row more than `limit` if there are more pages."""
    return Page(data=[record.model_validate(row) for row in rows[:limit]], has_more=len(rows) > limit)
