"""Alert rules of a project: conditions on the metrics of its jobs, beside the health rules of the trainer."""

from datetime import datetime
from typing import Annotated, Literal, get_args
from uuid import UUID

from pydantic import Field, field_validator

from calibrl.schemas.base import Label, LabelKey, Record, Slug
from calibrl_core.health.settings import RuleName
from calibrl_core.settings.base import StrictSettings

MetricName = Annotated[
    str, Field(min_length=1, max_length=200, description="Name of a metric, such as exploration/entropy.")
]
HEALTH_RULES = frozenset(get_args(RuleName))
MAX_RULES = 50  # of a project


class LimitCondition(StrictSettings):
    """The last `steps` values of a metric are all below, or all above, a limit."""

    type: Literal["below", "above"]
    metric: MetricName
    limit: float = Field(description="Limit in the unit of the metric.")
    steps: int = Field(
        1, ge=1, le=1000, description="Values in a row beyond the limit at which the rule fires. NaN does not count."
    )


class NotFiniteCondition(StrictSettings):
    """The last value of a metric is NaN or infinite."""

    type: Literal["not_finite"]
    metric: MetricName


class WorseThanBestCondition(StrictSettings):
    """The last `steps` values of a metric are all worse than its best value so far by more than `by`."""

    type: Literal["worse_than_best"]
    metric: MetricName = "validation/accuracy"
    by: float = Field(ge=0, description="Distance from the best value, in the unit of the metric.")
    best: Literal["highest", "lowest"] = Field("highest", description="Which value of the metric is the best.")
    steps: int = Field(1, ge=1, le=1000, description="Values in a row at which the rule fires. NaN does not count.")


class NoProgressCondition(StrictSettings):
    """A running job has completed no step for some minutes."""

    type: Literal["no_progress"]
    minutes: int = Field(ge=1, le=10_080, description="Minutes without a step, since the last one or the start.")


MetricCondition = LimitCondition | NotFiniteCondition | WorseThanBestCondition
AlertCondition = Annotated[MetricCondition | NoProgressCondition, Field(discriminator="type")]


class AlertRuleSettings(StrictSettings):
    """Condition of an alert rule, and the jobs of its project that it concerns."""

    condition: AlertCondition
    labels: dict[LabelKey, Label] = Field(
        default_factory=dict, max_length=32, description="Labels that a job must have. Empty: all jobs."
    )
    job_names: str | None = Field(
        None,
        min_length=1,
        max_length=120,
        description="Pattern that the name of a job must match: `*` is any text, `?` any character. null: all jobs.",
    )


class NewAlertRule(AlertRuleSettings):
    """A new alert rule."""

    project: Slug = "default"
    name: Slug = Field(description="Name of the rule in its alerts. It cannot be changed.")

    @field_validator("name")
    @classmethod
    def _is_free(cls, name: str) -> str:
        if name.replace("-", "_") in HEALTH_RULES:
            raise ValueError("is the name of a health rule; choose another name")
        return name


class AlertRule(Record):
    """An alert rule of a project."""

    id: UUID
    project: str
    name: str
    condition: AlertCondition
    labels: dict[str, str]
    job_names: str | None
    created_by: str
    created_at: datetime


def condition_text(condition: MetricCondition | NoProgressCondition) -> str:
    """Return a condition as text for people."""
    match condition:
        case LimitCondition(type=side, metric=metric, limit=limit, steps=steps):
            return f"{metric} {side} {limit:g}{_length(steps)}"
        case NotFiniteCondition(metric=metric):
            return f"{metric} not finite"
        case WorseThanBestCondition(metric=metric, by=by, best=best, steps=steps):
            return f"{metric} worse than its {best} value by more than {by:g}{_length(steps)}"
        case NoProgressCondition(minutes=minutes):
            return f"no step for {minutes} minute{'s' if minutes > 1 else ''}"


def _length(steps: int) -> str:
    return f" for {steps} values in a row" if steps > 1 else ""
