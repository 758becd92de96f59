"""Events of a job: changes of its status and other incidents."""

from datetime import datetime

from pydantic import Field

from calibrl.schemas.base import Record
from calibrl.schemas.status import JobStatus, Reason


class Event(Record):
    """One event in the history of a job."""

    id: int
    ts: datetime
    type: str = Field(
        description="Type of the event: submitted, queued, claimed, started, checkpoint, cancelling, warning, "
        "health and others."
    )
    status: JobStatus | None = Field(description="New status, if the event changed the status.")
    reason: Reason | None
    actor: str = Field(description="`user`, `scheduler`, or the name of a worker.")
    message: str | None
