"""Slot-hours of jobs and projects, by what they bought."""

from uuid import UUID

from pydantic import Field

from calibrl.schemas.base import JobKind, Record
from calibrl.schemas.status import JobStatus


class SlotHours(Record):
    """Slot-hours by what they bought. A slot is a GPU or a CPU slot. Each hour is in one field only."""

    learning: float = Field(
        0.0, description="Sampling of groups with an advantage, log-probabilities of experts, and updates."
    )
    no_advantage: float = Field(
        0.0, description="Sampling of groups whose rewards are all equal: nothing is learned from them."
    )
    truncated: float = Field(
        0.0,
        description="Sampling of completions that were truncated, in groups with an advantage. Estimated from the "
        "share of truncated completions, all of rollout.max_completion_tokens.",
    )
    waiting: float = Field(0.0, description="Steps that wait for verifiers or for encoded prompts.")
    validation: float = Field(0.0, description="Validation during training.")
    evaluation: float = Field(0.0, description="All hours of evaluations, audits and what-ifs.")
    start: float = Field(0.0, description="The first attempt until its first step: model, data and checks are loaded.")
    restarts: float = Field(
        0.0, description="Steps that were lost because an attempt ended before a checkpoint, and the start of others."
    )
    other: float = Field(
        0.0,
        description="Checkpoints, samples, diagnostics, the end of the job, and all hours of a training whose metrics "
        "are deleted.",
    )


class Price(Record):
    """Price of slot-hours, from the settings of the service."""

    amount: float
    currency: str


class JobHours(Record):
    """Slot-hours of one job. A running job counts up to now."""

    job_id: UUID
    name: str
    kind: JobKind
    status: JobStatus
    slots: int = Field(description="Slots that the job holds while it runs, on all its machines.")
    slot_hours: float
    gpu_hours: float
    bought: SlotHours
    queued_hours: float = Field(
        description="Hours without a slot since submission: in the queue, waiting for other jobs, or paused."
    )
    first_accuracy: float | None = Field(description="validation/accuracy of the first validation, 0 to 1.")
    best_accuracy: float | None = Field(description="Highest validation/accuracy, 0 to 1.")
    slot_hours_per_point: float | None = Field(
        description="Slot-hours per point (0.01) that the best validation is above the first one. None: it is not, or "
        "there was one validation only."
    )
    price: Price | None = Field(description="None: the service has no price for these slots.")


class ProjectHours(Record):
    """Slot-hours of a project: those of all attempts that began in the period."""

    project: str
    days: int
    jobs: int = Field(description="Number of jobs with such an attempt.")
    slot_hours: float
    gpu_hours: float
    bought: SlotHours
    lost_slot_hours: float = Field(description="Part of slot_hours that belongs to jobs that failed or were cancelled.")
    price: Price | None = Field(description="None: the service has no price for some of these slots.")
    most: list[JobHours] = Field(description="The jobs with the most slot-hours, at most 20.")
