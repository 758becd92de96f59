"""What endpoints ask for: a session, an existing job, the bounds of a page."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import Depends, Query, Request
from sqlalchemy.orm import Session

from api import idempotency
from jobs import models
from jobs.db import session_scope
from jobs.repository import jobs
from jobs.schemas import Page, Record

R = TypeVar("R", bound=Record)
BIGGEST_ID = 2**63 - 1
BIGGEST_STEP = 2**31 - 1


def _session(request: Request) -> Iterator[Session]:
    with session_scope() as session:
        idempotency.claim(request, session)
        yield session


# scope="function": the commit comes before the answer, so that no client holds a 201 for a job that never was.
Db = Annotated[Session, Depends(_session, scope="function")]


def _existing_job(job_id: UUID, session: Db) -> models.Job:
    return jobs.get(session, job_id)


ExistingJob = Annotated[models.Job, Depends(_existing_job, scope="function")]
Limit = Annotated[int, Query(ge=1, le=1000, description="most items in the page")]
StepLimit = Annotated[int, Query(ge=1, le=5000, description="most items in the page")]
AfterId = Annotated[int, Query(ge=0, le=BIGGEST_ID, description="id of the last item seen")]
AfterStep = Annotated[int, Query(ge=-1, le=BIGGEST_STEP, description="only steps past this; -1: all")]


def page(rows: Sequence[Any], limit: int, record: type[R]) -> Page[R]:
    """A page of records from its rows and, where there is more, one row beyond."""
    return Page(data=[record.model_validate(row) for row in rows[:limit]], has_more=len(rows) > limit)
