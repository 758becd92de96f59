"""Events of a job."""

from fastapi import APIRouter

from api.deps import AfterId, Db, ExistingJob, Limit, page
from calibrl.schemas import Event, Page
from jobs.repository import events

router = APIRouter(prefix="/jobs/{job_id}/events", tags=["jobs"])


@router.get("")
def list_events(session: Db, job: ExistingJob, after: AfterId = 0, limit: Limit = 100) -> Page[Event]:
    """List the events of a job in order."""
    return page(events.page(session, job.id, after=after, limit=limit + 1), limit, Event)
