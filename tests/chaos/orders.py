"""Orders of a user, or of the harness, to jobs: one transaction each, repeated until the database answers."""

from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy.orm import Session
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from calibrl.schemas import job_spec_adapter
from jobs import lifecycle, models
from jobs.db import session_scope
from jobs.errors import Conflict
from jobs.repository import events, jobs
from tests.support.waiting import LIMIT_SECONDS
from worker.database_errors import AWAY

T = TypeVar("T")
USER = "user"


@retry(retry=retry_if_exception_type(AWAY), stop=stop_after_delay(LIMIT_SECONDS), wait=wait_fixed(0.1), reraise=True)
def asked(action: Callable[[Session], T]) -> T:
    """Return the result of an action in a session."""
    with session_scope() as session:
        return action(session)


def submit(spec: dict[str, Any], before: Callable[[UUID], None] = lambda _: None) -> UUID:
    """Add a job; `before` is called before anyone can see it."""

    def add(session: Session) -> UUID:
        job = lifecycle.submit(session, job_spec_adapter.validate_python(spec), actor=USER)
        before(job.id)
        return job.id

    return asked(add)


def ordered(order: Callable[..., models.Job], job_id: UUID) -> bool:
    """Pause, resume, cancel or retry a job; return False if its status does not allow that (409)."""
    try:
        asked(lambda session: order(session, job_id, actor=USER))
    except Conflict:
        return False
    return True


def job(job_id: UUID) -> models.Job:
    """Return the job."""
    return asked(lambda session: jobs.get(session, job_id))


def history(job_id: UUID) -> list[models.Event]:
    """Return all events of the job."""
    return asked(lambda session: events.page(session, job_id, after=0, limit=10_000))
