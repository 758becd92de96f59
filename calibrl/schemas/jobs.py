"""Jobs as clients see them, how they are listed and changed, and what happened in their lives."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator

from calibrl.schemas.base import Label, LabelKey, Name, Priority, Record, Slug
from calibrl.schemas.specs import CheckpointChoice
from calibrl.schemas.status import JobStatus, Reason
from calibrl_core.settings_base import Closed

MOST_LABELS = 32
MOST_NOTES = 10_000  # characters
BY_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,63}:.{0,512}", re.DOTALL)
Notes = Annotated[str, Field(max_length=MOST_NOTES, description="free text, for people")]
JobSort = Literal["created", "-created", "name", "-name", "status", "-status", "finished", "-finished"]


def _label(text: str) -> str:
    if not BY_LABEL.fullmatch(text):
        raise ValueError(f"{text!r}: write it as key:value, such as team:vision")
    return text


class JobFilter(BaseModel):
    """Which jobs are listed, and how. Times need a zone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: list[JobStatus] = Field([], max_length=len(JobStatus), description="any of these")
    kind: Literal["train", "evaluate"] | None = None
    project: Slug | None = None
    user: str | None = Field(None, max_length=200, description="who submitted it")
    label: list[Annotated[str, AfterValidator(_label)]] = Field(
        [], max_length=MOST_LABELS, description="key:value, all of these"
    )
    created_after: AwareDatetime | None = Field(None, description="submitted then or later")
    created_before: AwareDatetime | None = Field(None, description="submitted before that")
    q: str | None = Field(
        None, min_length=1, max_length=200, description="text in the name or the notes, or the id's beginning"
    )
    derived_from: UUID | None = Field(
        None, description="what comes of this job: forks, jobs that begin with or judge its checkpoints or wait for it"
    )
    sort: JobSort = Field(
        "-created", description="`-`: from the greatest on. finished: what has not ended counts as ending last"
    )
    after: UUID | None = Field(None, description="id of the last job seen")
    limit: int = Field(100, ge=1, le=1000, description="most items in the page")

    @property
    def labels(self) -> list[dict[str, str]]:
        """The labels that a job must have, each as a mapping of its own."""
        return [{key: value} for key, _, value in (label.partition(":") for label in self.label)]


class JobChanges(Closed):
    """What may be changed of a job that has been submitted; what is left out stays. The priority only until it ends."""

    priority: Priority | None = Field(None, description="its class: a higher one goes first")
    name: Name | None = None
    labels: dict[LabelKey, Label | None] | None = Field(
        None, max_length=2 * MOST_LABELS, description="labels to set; null removes one, the others stay"
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


class Fork(Closed):
    """How a job's spec is taken up again."""

    checkpoint: CheckpointChoice = Field(
        "best", description="of a training job, where the new one begins: best or last of those it has now, or a step"
    )
    changes: dict[str, Any] = Field(
        default_factory=dict, description="a merge patch (RFC 7396) of the spec: null removes a field"
    )
    name: Name | None = Field(None, description="None: the job's own with -fork behind it")


class JobSummary(Record):
    """A job as lists have it: without what may be long."""

    id: UUID
    name: str
    kind: Literal["train", "evaluate"]
    project: str
    user: str = Field(description="who submitted it")
    priority: Priority
    labels: dict[str, str]
    gpus: int = Field(description="GPUs that it takes; 0: a CPU slot")
    status: JobStatus
    reason: Reason | None = Field(description="why the status is what it is, where there is something to say")
    message: str | None = Field(description="the reason in a sentence; for a crash, the last lines of the log")
    step: int = Field(description="steps (training) or completions batches (evaluation) done")
    steps_total: int | None = Field(description="steps planned; None until the trainer has said so")
    attempt: int = Field(description="times a worker has started it")
    depends_on: list[UUID]
    forked_from: UUID | None = Field(None, description="the job whose spec it took up")
    forked_step: int | None = Field(None, description="the checkpoint of that job with which it began")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class Job(JobSummary):
    """A job, whole."""

    notes: str = ""
    spec: dict[str, Any] = Field(description="the spec with every default filled in")
    result: dict[str, Any] | None = Field(description="what the trainer said at its end: see `calibrl_core.report`")


class Event(Record):
    """One change in a job's life."""

    id: int
    ts: datetime
    type: str = Field(description="submitted, queued, claimed, started, checkpoint, cancelling, warning, health, ...")
    status: JobStatus | None = Field(description="the status that it led to, where it changed it")
    reason: Reason | None
    actor: str = Field(description="user, scheduler, or a worker's name")
    message: str | None
