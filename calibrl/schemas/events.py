"""Events of a job: changes of its status and other incidents."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from calibrl.schemas.base import Record
from calibrl.schemas.status import JobStatus, Reason


class HealthAlert(Record):
    """A health rule fired or cleared."""

    rule: str = Field(description="Name of the rule.")
    state: Literal["fired", "cleared"]
    step: int = Field(description="Step at which the rule fired or cleared.")
    message: str = Field(description="The observed values, in words.")
    suggestion: str = Field(description="Recommended action. Empty if the rule cleared.")


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
    alert: HealthAlert | None = Field(None, description="Alert of a `health` event: its message as fields.")
