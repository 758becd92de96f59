"""Projects: limits and used slot-hours."""

from datetime import datetime

from pydantic import BaseModel, Field

from calibrl.schemas.base import MAX_LIMIT, Priority, Record
from calibrl_core.settings.base import StrictSettings


class ProjectLimits(BaseModel):
    """Limits of a project. None: no limit. A slot is a GPU or a CPU slot; a month is a calendar month (UTC)."""

    weight: float = Field(
        1.0, gt=0, le=1000, description="Fair-share weight: share of the slots relative to other projects."
    )
    max_gpus: int | None = Field(
        None, ge=0, le=MAX_LIMIT, description="Maximum number of GPUs that jobs of the project hold at the same time."
    )
    max_queued: int | None = Field(
        None, ge=0, le=MAX_LIMIT, description="Maximum number of waiting jobs; further submissions are refused."
    )
    max_priority: Priority | None = Field(None, description="Highest priority class of its jobs.")
    max_run_hours: float | None = Field(
        None, gt=0, le=MAX_LIMIT, description="Maximum run time of a job in hours, all its attempts together."
    )
    budget_slot_hours: float | None = Field(
        None, ge=0, description="Maximum slot-hours per month, for all jobs of the project together."
    )
    user_budget_slot_hours: float | None = Field(
        None, ge=0, description="Maximum slot-hours per month and user in the project."
    )
    retention_days: int | None = Field(
        None,
        ge=1,
        le=MAX_LIMIT,
        description="Days after which curves, samples, logs and files of an ended job are deleted.",
    )


class Project(ProjectLimits, Record):
    """A project and its limits."""

    slug: str
    created_at: datetime
    retention_from: datetime | None = Field(
        None, description="Time before which the retention deletes nothing: 7 days after it was shortened. None: none."
    )


class ProjectSettings(ProjectLimits, StrictSettings):
    """Limits to set for a project."""


class Usage(Record):
    """Slot-hours of one user in one project in a calendar month (UTC)."""

    project: str
    user: str
    slot_hours: float
    gpu_hours: float
    budget_slot_hours: float | None = Field(
        description="Slot-hours that the project can use per month, for all its users together."
    )
