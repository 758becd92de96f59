"""The slots that run jobs."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import Db, Limit, page
from jobs.repository import workers
from jobs.schemas import Page, Worker

router = APIRouter(prefix="/workers", tags=["workers"])


@router.get("")
def list_workers(
    session: Db,
    after: Annotated[str, Query(max_length=1000, description="name of the last worker seen")] = "",
    limit: Limit = 100,
) -> Page[Worker]:
    """Workers by name."""
    return page(workers.page(session, after=after, limit=limit + 1), limit, Worker)
