"""Jobs: submit, plan, list, read, change, fork, cancel, pause, resume, retry."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.orm import Session

from api import preconditions
from api.deps import CurrentCaller, Db, ExistingJob, WritableJob, existing_job, read
from api.examples import CHANGES, FORKS, JOB_SPECS, WHAT_IFS
from api.idempotency import IdempotentRoute, look
from api.preconditions import IfMatch
from calibrl.schemas import (
    AnySpec,
    BisectionRequest,
    Fork,
    Job,
    JobChanges,
    JobFilter,
    JobPlan,
    JobSpec,
    JobSummary,
    Page,
    Role,
    WhatIfRequest,
    job_spec_adapter,
)
from jobs import lifecycle, models
from jobs.access.callers import Caller
from jobs.db import search_limit
from jobs.planning import dry_run
from jobs.planning.expert_lengths import expert_tokenizer
from jobs.repository import datasets, jobs
from jobs.specs import checks, hub_commits
from jobs.specs.references import References

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=IdempotentRoute)


async def _prepared(
    request: Request, spec: Annotated[JobSpec, Body(openapi_examples=JOB_SPECS)], caller: CurrentCaller
) -> AnySpec:
    if References.of(spec).hub_models:  # an answered request is answered again even if the hub is away
        await read(request, lambda session: look(request, session))
    return await run_in_threadpool(looked_into, spec, caller)


def looked_into(spec: AnySpec, caller: Caller) -> AnySpec:
    """Return a spec whose files were read and whose models of the hub are pinned. This is slow: hold no transaction
    meanwhile. The later check uses the cached result.

    Raises:
        Forbidden: the caller cannot submit jobs to the project.
        Invalid: the caller cannot see the project, or the spec names none and the caller has several.
    """
    if "project" not in spec.model_fields_set:
        spec = spec.model_copy(update={"project": caller.usual_project("project")})
    caller.need_named(spec.project, Role.MEMBER)
    checks.file_problems(References.of(spec))
    return hub_commits.pinned(spec)


Spec = Annotated[AnySpec, Depends(_prepared)]


async def _looked_at(request: Request, spec: Spec, caller: CurrentCaller) -> AnySpec:
    ids = References.of(spec).datasets

    def known(session: Session) -> tuple[dict[UUID, models.Dataset], Path | None]:
        rows = datasets.lock_shared(session, ids)
        own = {id: row for id, row in rows.items() if row.project == spec.project}
        return own, expert_tokenizer(session, spec, caller.projects)

    await run_in_threadpool(dry_run.read_files, spec, *await read(request, known))
    await run_in_threadpool(hub_commits.read_headers, spec)
    return spec


@router.post("", status_code=201)
def submit_job(spec: Spec, session: Db, caller: CurrentCaller, response: Response) -> Job:
    """Submit a job. It is queued, or waits for its dependencies."""
    caller.need_named(spec.project, Role.MEMBER)
    return _added(
        lifecycle.submit(session, spec, actor=caller.user, visible_projects=caller.projects), response, caller
    )


@router.post(":plan")
def plan_job(spec: Annotated[AnySpec, Depends(_looked_at)], session: Db, caller: CurrentCaller) -> JobPlan:
    """Dry-run a spec: return its defaults, data, memory, estimated start and warnings. An invalid spec is refused as on
    submission; no job is created."""
    caller.need_named(spec.project, Role.MEMBER)
    return dry_run.dry_run(session, spec, actor=caller.user, visible_projects=caller.projects)


@router.get("")
def list_jobs(session: Db, caller: CurrentCaller, filters: Annotated[JobFilter, Query()]) -> Page[JobSummary]:
    """List the jobs of your projects, newest first by default, without specs, results and notes. `fields` adds fields
    of the specs."""
    with search_limit(session, "q") if filters.q else nullcontext():
        rows = jobs.page(session, filters, caller.projects)
    data = [JobSummary.model_validate(job) for job in rows[: filters.limit]]
    if filters.fields:
        values = jobs.spec_values(session, [job.id for job in data], filters.fields)
        data = [job.model_copy(update={"fields": values[job.id]}) for job in data]
    return Page(data=data, has_more=len(rows) > filters.limit)


@router.get("/{job_id}")
def read_job(job: ExistingJob, response: Response) -> Job:
    """Return one job. Its `ETag` is that of name, labels, notes and priority."""
    return _tagged(Job.model_validate(job), response)


@router.post("/{job_id}/cancel")
def cancel_job(job_id: WritableJob, session: Db, caller: CurrentCaller) -> Job:
    """Cancel a job. A running job is `cancelling` until its worker has stopped it."""
    return Job.model_validate(lifecycle.cancel(session, job_id, actor=caller.user))


@router.patch("/{job_id}")
def change_job(
    job_id: WritableJob,
    changes: Annotated[JobChanges, Body(openapi_examples=CHANGES)],
    session: Db,
    caller: CurrentCaller,
    response: Response,
    if_match: IfMatch = None,
) -> Job:
    """Change a job's name, labels and notes at any time, or its priority before its end."""
    row, fields = jobs.lock(session, job_id), preconditions.EDITED["job"]
    preconditions.check(if_match, row, fields)
    before = {name: getattr(row, name) for name in fields}
    changed = Job.model_validate(lifecycle.edit(session, job_id, changes, actor=caller.user))
    caller.changed(job_id, before, changed.model_dump(mode="json", include=set(fields)))
    return _tagged(changed, response)


@router.delete("/{job_id}", status_code=204)
def remove_job(job_id: WritableJob, session: Db, caller: CurrentCaller) -> None:
    """Remove a job that has ended, with its metrics, samples and checkpoints. Refused while a study has it, while jobs
    that have not ended depend on it, and, except for admins of the service, while its slot-hours count for budgets and
    fair share.
    """
    lifecycle.remove(session, job_id, admin=caller.admin)


def _tagged(job: Job, response: Response) -> Job:
    preconditions.set_tag(response, job, preconditions.EDITED["job"])
    return job


async def _forked(
    request: Request, job_id: UUID, fork: Annotated[Fork, Body(openapi_examples=FORKS)], caller: CurrentCaller
) -> tuple[AnySpec, int | None]:
    def parent(session: Session) -> tuple[dict[str, Any], int | None]:
        look(request, session)
        return lifecycle.fork_spec(session, existing_job(job_id, session, caller).id, fork)

    parent_spec, step = await read(request, parent)
    return await run_in_threadpool(lambda: looked_into(checked_spec(parent_spec), caller)), step


@router.post("/{job_id}/fork", status_code=201)
def fork_job(
    job_id: UUID,
    forked: Annotated[tuple[AnySpec, int | None], Depends(_forked)],
    session: Db,
    caller: CurrentCaller,
    response: Response,
) -> Job:
    """Create a job from another job's spec, with changes. A training job starts from an existing checkpoint of the
    other job, which is kept for it; an evaluation runs again.
    """
    spec, step = forked
    caller.need_named(spec.project, Role.MEMBER)
    added = lifecycle.submit(
        session, spec, actor=caller.user, visible_projects=caller.projects, forked_from=job_id, forked_step=step
    )
    return _added(added, response, caller)


async def _made(request: Request, caller: Caller, make: Callable[[Session], dict[str, Any]]) -> AnySpec:
    """Return the spec that is made of another job, checked like a posted one."""

    def of_job(session: Session) -> dict[str, Any]:
        look(request, session)
        return make(session)

    spec = await read(request, of_job)
    return await run_in_threadpool(lambda: looked_into(checked_spec(spec), caller))


async def _comparing(
    request: Request,
    job_id: UUID,
    what_if: Annotated[WhatIfRequest, Body(openapi_examples=WHAT_IFS)],
    caller: CurrentCaller,
) -> AnySpec:
    def training(session: Session) -> dict[str, Any]:
        return lifecycle.what_if_spec(session, existing_job(job_id, session, caller).id, what_if)

    return await _made(request, caller, training)


@router.post("/{job_id}/what-if", status_code=201)
def what_if_job(
    spec: Annotated[AnySpec, Depends(_comparing)], session: Db, caller: CurrentCaller, response: Response
) -> Job:
    """Create a job that compares the update after a checkpoint of a training with those of other settings and
    algorithms. It trains nothing; the checkpoint is kept for it.
    """
    caller.need_named(spec.project, Role.MEMBER)
    return _added(
        lifecycle.submit(session, spec, actor=caller.user, visible_projects=caller.projects), response, caller
    )


async def _bisecting(request: Request, job_id: UUID, bisection: BisectionRequest, caller: CurrentCaller) -> AnySpec:
    def training(session: Session) -> dict[str, Any]:
        job = existing_job(job_id, session, caller)
        caller.need_named(job.project, Role.MEMBER)  # before a refusal that says which rules fired
        return lifecycle.bisection_spec(session, job.id, bisection)

    return await _made(request, caller, training)


@router.post("/{job_id}/bisection", status_code=201)
def bisect_job(
    spec: Annotated[AnySpec, Depends(_bisecting)], session: Db, caller: CurrentCaller, response: Response
) -> Job:
    """Create a job that finds the update that made a training worse before a health rule fired. It trains nothing; the
    checkpoints are kept for it.
    """
    caller.need_named(spec.project, Role.MEMBER)
    return _added(
        lifecycle.submit(session, spec, actor=caller.user, visible_projects=caller.projects), response, caller
    )


async def _repeated(request: Request, job_id: UUID, caller: CurrentCaller) -> AnySpec:
    def parent(session: Session) -> dict[str, Any]:
        return lifecycle.repeated_spec(session, existing_job(job_id, session, caller).id)

    return await _made(request, caller, parent)


@router.post("/{job_id}/reproduce", status_code=201)
def reproduce_job(
    job_id: UUID,
    spec: Annotated[AnySpec, Depends(_repeated)],
    session: Db,
    caller: CurrentCaller,
    response: Response,
) -> Job:
    """Run a job again from the start, with the same settings and seeds. `GET .../series-comparison` of the new job
    then compares both step by step."""
    caller.need_named(spec.project, Role.MEMBER)
    added = lifecycle.submit(session, spec, actor=caller.user, visible_projects=caller.projects, forked_from=job_id)
    return _added(added, response, caller)


@router.post("/{job_id}/pause")
def pause_job(job_id: WritableJob, session: Db, caller: CurrentCaller) -> Job:
    """Pause a job. A running job is `pausing` until it has saved a checkpoint and freed its slot."""
    return Job.model_validate(lifecycle.pause(session, job_id, actor=caller.user))


@router.post("/{job_id}/resume")
def resume_job(job_id: WritableJob, session: Db, caller: CurrentCaller) -> Job:
    """Return a paused job to the queue; it resumes from its last checkpoint."""
    return Job.model_validate(lifecycle.resume(session, job_id, actor=caller.user))


@router.post("/{job_id}/retry")
def retry_job(job_id: WritableJob, session: Db, caller: CurrentCaller) -> Job:
    """Run a failed or cancelled job again, from its last checkpoint."""
    return Job.model_validate(lifecycle.retry(session, job_id, actor=caller.user))


def _added(row: models.Job, response: Response, caller: Caller) -> Job:
    job = Job.model_validate(row)
    caller.changed(job.id)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job


def checked_spec(spec: dict[str, Any]) -> AnySpec:
    """Return a spec that was made from others.

    Raises:
        RequestValidationError: it is invalid.
    """
    try:
        return job_spec_adapter.validate_python(spec)
    except ValidationError as error:  # location as in a posted spec
        faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]
        raise RequestValidationError(faults, body=spec) from error
