"""The queue: waiting jobs, their reasons and estimated starts."""

from fastapi import APIRouter

from api.deps import CurrentCaller, Db
from calibrl.schemas import Page, QueueEntry, Slug
from jobs import lifecycle

router = APIRouter(prefix="/queue", tags=["queue"])


@router.get("")
def read_queue(session: Db, caller: CurrentCaller, project: Slug | None = None) -> Page[QueueEntry]:
    """List the jobs of your projects that have not started, in queue order. Each has its position among the jobs of all
    projects, the reason for its wait, and its estimated start.
    """
    entries = [entry for entry in lifecycle.queue_entries(session, project) if caller.sees(entry.project)]
    return Page(data=entries, has_more=False)
