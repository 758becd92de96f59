"""The queue: who waits, for what, and how long."""

from fastapi import APIRouter

from api.deps import CurrentCaller, Db
from calibrl.schemas import Page, QueueEntry, Slug
from jobs import lifecycle

router = APIRouter(prefix="/queue", tags=["queue"])


@router.get("")
def read_queue(session: Db, caller: CurrentCaller, project: Slug | None = None) -> Page[QueueEntry]:
    """The jobs of your projects that have not started, those in line first: position among everybody's, why each
    waits, and when it may start."""
    found = [entry for entry in lifecycle.queue_entries(session, project) if caller.sees(entry.project)]
    return Page(data=found, has_more=False)
