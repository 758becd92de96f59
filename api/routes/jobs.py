"""Jobs: submit, list, read, and what may be asked of one."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Body, Query, Response

from api.deps import Asker, Db, ExistingJob, Limit, OwnJob, page
from api.examples import JOB_SPECS, PRIORITIES
from jobs import lifecycle
from jobs.repository import jobs
from jobs.schemas import Job, JobChanges, JobSpec, JobStatus, Page, Role, Slug

router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.post("", status_code=201)
def submit_job(
    spec: Annotated[JobSpec, Body(openapi_examples=JOB_SPECS)], session: Db, caller: Asker, response: Response
) -> Job:
    """Add a job. It is queued, or waits for the jobs that it depends on."""
    if caller.sees(spec.project):
        caller.need(spec.project, Role.MEMBER)
    job = Job.model_validate(lifecycle.submit(session, spec, actor=caller.user, among=caller.projects))
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job


@router.get("")
def list_jobs(
    session: Db,
    caller: Asker,
    status: JobStatus | None = None,
    kind: Literal["train", "evaluate"] | None = None,
    project: Slug | None = None,
    after: Annotated[UUID | None, Query(description="id of the last job seen")] = None,
    limit: Limit = 100,
) -> Page[Job]:
    """The jobs of your projects, newest first."""
    found = jobs.page(
        session, among=caller.projects, status=status, kind=kind, project=project, after=after, limit=limit + 1
    )
    return page(found, limit, Job)


@router.get("/{job_id}")
def read_job(job: ExistingJob) -> Job:
    """One job."""
    return Job.model_validate(job)


@router.post("/{job_id}/cancel")
def cancel_job(job_id: OwnJob, session: Db, caller: Asker) -> Job:
    """End a job before its time. One that runs is `cancelling` until its worker has stopped it."""
    return Job.model_validate(lifecycle.cancel(session, job_id, actor=caller.user))


@router.patch("/{job_id}")
def change_job(
    job_id: OwnJob,
    changes: Annotated[JobChanges, Body(openapi_examples=PRIORITIES)],
    session: Db,
    caller: Asker,
) -> Job:
    """Give a job that has not ended another priority class."""
    return Job.model_validate(lifecycle.prioritise(session, job_id, changes.priority, actor=caller.user))


@router.post("/{job_id}/pause")
def pause_job(job_id: OwnJob, session: Db, caller: Asker) -> Job:
    """Hold a job. One that runs is `pausing` until its worker has had it write a checkpoint; then its slot is free."""
    return Job.model_validate(lifecycle.pause(session, job_id, actor=caller.user))


@router.post("/{job_id}/resume")
def resume_job(job_id: OwnJob, session: Db, caller: Asker) -> Job:
    """Put a paused job back in line; it goes on from its last checkpoint."""
    return Job.model_validate(lifecycle.resume(session, job_id, actor=caller.user))


@router.post("/{job_id}/retry")
def retry_job(job_id: OwnJob, session: Db, caller: Asker) -> Job:
    """Run a failed or cancelled job again, from its last checkpoint."""
    return Job.model_validate(lifecycle.retry(session, job_id, actor=caller.user))
