"""Slot-hours of jobs and projects, by what they bought."""

from typing import Annotated

from anyio import CapacityLimiter
from fastapi import APIRouter, Path, Query, Request

from api.deps import CurrentCaller, Db, ExistingJob, read
from calibrl.schemas import JobHours, ProjectHours, Role, Slug
from jobs.insight import hours

router = APIRouter(tags=["hours"])
MAX_DAYS = 366
ADDING = CapacityLimiter(2)


@router.get("/jobs/{job_id}/hours")
def read_job_hours(session: Db, job: ExistingJob) -> JobHours:
    """Return the slot-hours of a job by what they bought, its accuracy per hour, and its price if one is set."""
    return hours.job_hours(session, job)


@router.get("/projects/{slug}/hours")
async def read_project_hours(
    slug: Annotated[Slug, Path(description="Slug of the project.")],
    request: Request,
    caller: CurrentCaller,
    days: Annotated[int, Query(ge=1, le=MAX_DAYS, description="Attempts that began in the last days count.")] = 30,
) -> ProjectHours:
    """Return the slot-hours of a project by what they bought, and the jobs with the most of them. At most two
    projects are added up at the same time."""
    caller.need(slug, Role.VIEWER)
    async with ADDING:
        return await read(request, lambda session: hours.project_hours(session, slug, days))
