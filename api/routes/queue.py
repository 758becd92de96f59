"""The queue: who waits, for what, and how long."""

from fastapi import APIRouter

from api.deps import Db
from jobs import lifecycle
from jobs.schemas import Page, QueueEntry, Slug

router = APIRouter(prefix="/queue", tags=["queue"])


@router.get("")
def read_queue(session: Db, project: Slug | None = None) -> Page[QueueEntry]:
    """All jobs that have not started, those in line first: position, why each waits, and when it may start."""
    return Page(data=lifecycle.entries(session, project), has_more=False)
