"""Slot-hours of jobs and projects, by what they bought."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.deps import CurrentCaller, Db, ExistingJob
from calibrl.schemas import JobHours, ProjectHours, Role, Slug
from jobs.insight import hours

router = APIRouter(tags=["hours"])
MAX_DAYS = 366


@router.get("/jobs/{job_id}/hours")
def read_job_hours(session: Db, job: ExistingJob) -> JobHours:
    """Return the slot-hours of a job by what they bought, its accuracy per hour, and its price if one is set."""
    return hours.job_hours(session, job)


@router.get("/projects/{slug}/hours")
def read_project_hours(
    slug: Annotated[Slug, Path(description="Slug of the project.")],
    session: Db,
    caller: CurrentCaller,
    days: Annotated[int, Query(ge=1, le=MAX_DAYS, description="Attempts that began in the last days count.")] = 30,
) -> ProjectHours:
    """Return the slot-hours of a project by what they bought, and the jobs with the most of them."""
    caller.need(slug, Role.VIEWER)
    return hours.project_hours(session, slug, days)
