"""Jobs in responses, their filters and changes, and their events."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator

from calibrl.schemas.base import JobKind, Label, LabelKey, Name, Priority, Record, Slug
from calibrl.schemas.specs import CheckpointChoice
from calibrl.schemas.status import JobStatus, Reason
from calibrl_core.health.settings import RuleName
from calibrl_core.settings.base import StrictSettings
from calibrl_core.variants.settings import MOST_VARIANTS

MAX_LABELS = 32
MAX_NOTES_LENGTH = 10_000  # characters
LABEL = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._\-]{0,63})\s*[:=]\s*(.{0,512}?)\s*", re.DOTALL)
Notes = Annotated[str, Field(max_length=MAX_NOTES_LENGTH, description="Free text.")]
MAX_FIELDS = 64  # of the spec, in a list of jobs
MAX_IDS = 100  # in a filter
FieldPath = Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9_\-]+(\.[A-Za-z0-9_\-]+)*$")]
JobSort = Literal["created", "-created", "name", "-name", "status", "-status", "finished", "-finished"]


def parse_label(text: str) -> tuple[str, str]:
    """Return key and value of a label that is written as key:value or key=value, without spaces around them.

    Raises:
        ValueError: the text is not written so.
    """
    if not (match := LABEL.fullmatch(text)):
        raise ValueError(f"{text!r}: write it as key=value, such as team=vision")
    return match[1], match[2]


def _checked_label(text: str) -> str:
    return ":".join(parse_label(text))


class JobFilter(BaseModel):
    """Filter and order of a list of jobs. Times need a time zone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: list[JobStatus] = Field([], max_length=len(JobStatus), description="Jobs with any of these statuses.")
    kind: JobKind | None = None
    project: Slug | None = None
    user: str | None = Field(None, max_length=200, description="User who submitted the job.")
    label: list[Annotated[str, AfterValidator(_checked_label)]] = Field(
        [],
        max_length=MAX_LABELS,
        description="Label as key:value or key=value. A job must have all labels that are given.",
    )
    created_after: AwareDatetime | None = Field(None, description="Jobs submitted at this time or later.")
    created_before: AwareDatetime | None = Field(None, description="Jobs submitted before this time.")
    q: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Text in the name or the notes, or the first characters of the id.",
    )
    ids: list[UUID] = Field(
        [],
        max_length=MAX_IDS,
        description="Jobs with any of these ids. Ids without a job, or of a job that you cannot see, are ignored.",
    )
    derived_from: list[UUID] = Field(
        [],
        max_length=MAX_IDS,
        description="Jobs derived from any of these: forks, jobs that start from or evaluate their checkpoints, and "
        "dependents.",
    )
    fields: list[FieldPath] = Field(
        [],
        max_length=MAX_FIELDS,
        description="Fields of the spec to return with each job, such as `optimizer.lr`. Items of lists have numbers: "
        "`rewards.0.weight`.",
    )
    sort: JobSort = Field(
        "-created", description="Sort key; prefix `-` for descending. With `finished`, unfinished jobs sort last."
    )
    after: UUID | None = Field(None, description="Id of the last job of the previous page.")
    limit: int = Field(100, ge=1, le=1000, description="Maximum number of items per page.")

    @property
    def labels(self) -> list[dict[str, str]]:
        """Labels that a job must have, each as its own mapping."""
        return [{key: value} for key, value in map(parse_label, self.label)]


class JobChanges(StrictSettings):
    """Changes of a submitted job. Fields that are left out stay as they are. The priority can only change before the
    job ends."""

    priority: Priority | None = Field(None, description="Priority class. Jobs of a higher class start first.")
    name: Name | None = None
    labels: dict[LabelKey, Label | None] | None = Field(
        None,
        max_length=2 * MAX_LABELS,
        description="Labels to set. null removes a label; labels that are not named stay.",
    )
    notes: Notes | None = None

    @field_validator("priority", "name", "labels", "notes")
    @classmethod
    def _given(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("leave it out, or give a value")
        return value

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(f"give at least one of {', '.join(type(self).model_fields)}")
        return self


class Fork(StrictSettings):
    """Settings of a fork: checkpoint, changes of the spec, name."""

    checkpoint: CheckpointChoice = Field(
        "best",
        description="Checkpoint of the training job from which the new job starts: the best or last that exists "
        "now, or a step.",
    )
    changes: dict[str, Any] = Field(
        default_factory=dict,
        max_length=100,
        description="Changes of the spec as a merge patch (RFC 7396). null removes a field.",
    )
    name: Name | None = Field(None, description="Name of the new job. None: the name of the job with -fork appended.")


class WhatIfRequest(StrictSettings):
    """Settings of a what-if: checkpoint, update, variants, name."""

    checkpoint: CheckpointChoice = Field(
        "last",
        description="Checkpoint before the compared update: the best or last that exists now, or a step.",
    )
    update: int = Field(0, ge=0, le=10_000, description="Number of the update in the step after it, from 0.")
    variants: dict[Label, Annotated[dict[str, Any], Field(max_length=100)]] | None = Field(
        None,
        min_length=1,
        max_length=MOST_VARIANTS,
        description="Changes of the algorithm's settings, by name of the variant: {negative_slope: 0}, {type: grpo}. "
        "With another type the common settings stay. None: those that the algorithm names.",
    )
    name: Name | None = Field(
        None, description="Name of the new job. None: the name of the training with -what-if appended."
    )


class BisectionRequest(StrictSettings):
    """Settings of a bisection: rule, name."""

    rule: RuleName | None = Field(None, description="Health rule that has fired. None: the one that fired last.")
    name: Name | None = Field(
        None, description="Name of the new job. None: the name of the training with -bisection appended."
    )


class JobSummary(Record):
    """A job in lists, without the fields that can be long."""

    id: UUID
    name: str
    kind: JobKind
    project: str
    user: str = Field(description="User who submitted the job.")
    priority: Priority
    labels: dict[str, str]
    machines: int = Field(1, description="Number of machines on which the job runs at the same time.")
    gpus: int = Field(description="Number of GPUs on each machine. 0: one CPU slot on each.")
    status: JobStatus
    reason: Reason | None = Field(description="Reason of the status, if there is one.")
    message: str | None = Field(description="The reason in one sentence. After a crash, the last lines of the log.")
    step: int = Field(
        description="Completed steps (training), batches of completions (evaluation, audit), compared updates "
        "(what-if) or probes (bisection)."
    )
    steps_total: int | None = Field(description="Planned steps. None: neither the spec nor the trainer has said it.")
    attempt: int = Field(description="Number of times that a worker started the job.")
    depends_on: list[UUID]
    forked_from: UUID | None = Field(None, description="Job from whose spec this job was forked.")
    forked_step: int | None = Field(None, description="Step of the checkpoint of that job from which this job started.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    fields: dict[str, Any] = Field(
        {}, description="Values of the fields of the spec that the request of a list names, by path."
    )
    alerts: list[str] = Field([], description="Health rules that fire now, or fired when the job ended.")
    ended_seconds: float = Field(
        0.0, description="Seconds of its attempts that have ended, together: without pauses and waits in the queue."
    )
    attempt_started_at: datetime | None = Field(
        None, description="Start of the attempt that runs now. None: no worker runs the job."
    )

    @property
    def run_seconds(self) -> float | None:
        """Seconds that workers have run the job up to now, without pauses. None: no worker has started it."""
        if self.started_at is None:
            return None
        began = self.attempt_started_at
        return self.ended_seconds + ((datetime.now(UTC) - began).total_seconds() if began else 0.0)


class Job(JobSummary):
    """A job with all fields."""

    workers: list[str] = Field([], description="Machines that run the job now, the main machine first.")
    notes: str = ""
    spec: dict[str, Any] = Field(description="Spec with all defaults filled in.")
    result: dict[str, Any] | None = Field(
        description="Result that the trainer reported at its end, as `calibrl_core.report` documents."
    )
