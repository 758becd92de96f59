"""Projects: what each may use, and has used."""

from datetime import datetime

from pydantic import BaseModel, Field

from calibrl.schemas.base import MOST, Record
from calibrl_core.settings_base import Closed


class ProjectLimits(BaseModel):
    """What a project may use; None: no limit. A slot is a GPU or a CPU slot, a month a calendar month (UTC)."""

    weight: float = Field(1.0, gt=0, le=1000, description="its share beside other projects'")
    max_gpus: int | None = Field(None, ge=0, le=MOST, description="GPUs that its jobs may hold at once")
    max_queued: int | None = Field(None, ge=0, le=MOST, description="jobs that may wait when one is submitted")
    budget_slot_hours: float | None = Field(None, ge=0, description="slot-hours that its jobs may use a month")
    user_budget_slot_hours: float | None = Field(None, ge=0, description="the same, for each of its users")
    retention_days: int | None = Field(
        None, ge=1, le=MOST, description="curves, samples, logs and files of ended jobs are kept so long"
    )


class Project(ProjectLimits, Record):
    """A project and what it may use."""

    slug: str
    created_at: datetime


class ProjectSettings(ProjectLimits, Closed):
    """What may be changed of a project."""


class Usage(Record):
    """Slot-hours of one user in one project over a calendar month (UTC)."""

    project: str
    user: str
    slot_hours: float
    gpu_hours: float
    budget_slot_hours: float | None = Field(description="the project's, for all its users")
