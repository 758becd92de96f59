"""Events of a job: changes of its status and other incidents."""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from pydantic import Field

from calibrl.schemas.base import Record
from calibrl.schemas.status import JobStatus, Reason


class HealthAlert(Record):
    """A health rule, or an alert rule of the project, fired or cleared."""

    rule: str = Field(description="Name of the rule.")
    state: Literal["fired", "cleared"]
    step: int = Field(description="Step at which the rule fired or cleared.")
    message: str = Field(description="The observed values, in words.")
    suggestion: str = Field(description="Recommended action of a health rule. Empty if the rule cleared.")


def surviving(alerts: Iterable[HealthAlert]) -> list[HealthAlert]:
    """Return the alerts of steps that still count. `alerts`: those of one job, in order.

    If a run goes back to a checkpoint, the next alert of a rule is at an earlier step, and takes back those after it.
    """
    kept: dict[str, list[HealthAlert]] = {}
    for alert in alerts:
        of_rule = kept.setdefault(alert.rule, [])
        while of_rule and of_rule[-1].step > alert.step:
            of_rule.pop()
        of_rule.append(alert)
    return [alert for of_rule in kept.values() for alert in of_rule]


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
