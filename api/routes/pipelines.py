"""Pipelines: submit several jobs that depend on each other."""

from functools import cache
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError

from api.deps import CurrentCaller, Db, read
from api.errors import MOST_ERRORS
from api.examples import PIPELINES
from api.idempotency import IdempotentRoute, look
from api.routes.jobs import checked_spec, looked_into
from api.validation_errors import field_errors
from calibrl.schemas import AnySpec, Job, Page, Pipeline, Role, job_spec_adapter
from calibrl.schemas.field_names import Schema
from jobs import lifecycle
from jobs.access.callers import Caller
from jobs.errors import FieldError, Invalid
from jobs.specs.pipelines import with_ids

router = APIRouter(prefix="/pipelines", tags=["jobs"], route_class=IdempotentRoute)


def _looked_into(pipeline: Pipeline, caller: Caller) -> list[tuple[UUID, AnySpec]]:
    prepared = []
    for place, (id, spec) in enumerate(with_ids(pipeline.jobs)):
        try:
            prepared.append((id, looked_into(checked_spec(spec), caller)))
        except RequestValidationError as error:
            faults = field_errors(error.errors()[:MOST_ERRORS], spec, _spec_schema)
            raise _at(place, Invalid("The pipeline was not accepted.", tuple(faults))) from error
        except Invalid as error:
            raise _at(place, error) from error
    return prepared


@cache
def _spec_schema() -> Schema:
    return job_spec_adapter.json_schema()


def _at(place: int, error: Invalid) -> Invalid:
    return Invalid(error.detail, tuple(FieldError(f"jobs.{place}.{one.field}", one.message) for one in error.errors))


async def _prepared(
    request: Request, pipeline: Annotated[Pipeline, Body(openapi_examples=PIPELINES)], caller: CurrentCaller
) -> list[tuple[UUID, AnySpec]]:
    await read(request, lambda session: look(request, session))
    return await run_in_threadpool(_looked_into, pipeline, caller)


@router.post("", status_code=201)
def submit_pipeline(
    prepared: Annotated[list[tuple[UUID, AnySpec]], Depends(_prepared)], session: Db, caller: CurrentCaller
) -> Page[Job]:
    """Submit jobs together, such as a warm-up, a training and an evaluation: all of them, or none. Each job waits for
    the jobs that it names."""
    jobs = []
    for place, (id, spec) in enumerate(prepared):
        caller.need_named(spec.project, Role.MEMBER)
        try:
            row = lifecycle.submit(session, spec, actor=caller.user, visible_projects=caller.projects, id=id)
        except Invalid as error:
            raise _at(place, error) from error
        session.flush()  # later jobs refer to it
        jobs.append(Job.model_validate(row))
    caller.changed(jobs[0].id, None, {"jobs": [str(job.id) for job in jobs]})
    return Page(data=jobs, has_more=False)
