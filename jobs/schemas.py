"""The contract of the service: what a client posts, and what it reads back. Pydantic only; no database, no torch."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, Tag, TypeAdapter

from calibrl_core.closed import Closed, one_of
from calibrl_core.config import BuiltinModel, EvaluateSettings, ModelOptions, PathModel, TrainSettings

T = TypeVar("T")

Name = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._\-]*$")]
Slug = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9\-]*$")]
Label = Annotated[str, Field(max_length=200)]


class JobStatus(StrEnum):
    """Where a job stands. `waiting`: for a job that it depends on. The last three are final."""

    QUEUED = "queued"
    WAITING = "waiting"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


class Reason(StrEnum):
    """Why a job's status changed, where there is a reason to tell."""

    USER = "user"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out_of_memory"
    NON_FINITE = "non_finite"
    BAD_SPEC = "bad_spec"
    HEALTH = "health"
    LOST_WORKER = "lost_worker"
    WORKER_STOPPED = "worker_stopped"
    DEPENDENCY_FAILED = "dependency_failed"


class JobModel(ModelOptions):
    """The checkpoint that another job leaves. The other job becomes a dependency."""

    from_job: UUID = Field(description="id of a training job")
    checkpoint: Literal["best", "last"] = Field("best", description="best: by checkpoints.keep_best; else the newest")


ModelChoice = Annotated[
    Annotated[BuiltinModel, Tag("builtin")] | Annotated[PathModel, Tag("path")] | Annotated[JobModel, Tag("from_job")],
    one_of("builtin", "path", "from_job"),
]


class Resources(Closed):
    """What a job occupies while it runs."""

    gpus: int = Field(0, ge=0, le=1, description="GPUs; 0: a CPU slot")


class JobSettings(Closed):
    """What every job says about itself, whatever it does."""

    name: Name = Field(description="for people; need not be unique")
    project: Slug = "default"
    priority: Literal["low", "normal", "high"] = "normal"
    labels: dict[Slug, Label] = Field(default_factory=dict, max_length=32)
    resources: Resources = Field(default_factory=Resources)
    depends_on: tuple[UUID, ...] = Field((), max_length=32, description="jobs that must succeed first")


class TrainSpec(JobSettings, TrainSettings):
    """A training job."""

    kind: Literal["train"]
    model: ModelChoice


class EvaluateSpec(JobSettings, EvaluateSettings):
    """An evaluation job: every model on every data set."""

    kind: Literal["evaluate"]
    models: tuple[ModelChoice, ...] = Field(min_length=1, max_length=16)


JobSpec = Annotated[TrainSpec | EvaluateSpec, Field(discriminator="kind")]
job_spec_adapter: TypeAdapter[TrainSpec | EvaluateSpec] = TypeAdapter(JobSpec)


class Record(BaseModel):
    """Something that the service hands out; built from a table row or from JSON."""

    model_config = ConfigDict(from_attributes=True)


class Job(Record):
    """A job as clients see it."""

    id: UUID
    name: str
    kind: Literal["train", "evaluate"]
    project: str
    priority: Literal["low", "normal", "high"]
    labels: dict[str, str]
    status: JobStatus
    reason: Reason | None = Field(description="why the status is what it is, where there is something to say")
    message: str | None = Field(description="the reason in a sentence; for a crash, the last lines of the log")
    step: int = Field(description="steps (training) or completions batches (evaluation) done")
    steps_total: int | None = Field(description="steps planned; None until the trainer has said so")
    attempt: int = Field(description="times a worker has started it")
    depends_on: list[UUID]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
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


class MetricRow(Record):
    """All metrics of one step, by `family/name`. Not finite: the strings NaN, Infinity, -Infinity."""

    step: int
    ts: datetime
    values: dict[str, float | str]


class Histogram(Record):
    """Counts between fixed edges: `len(edges) == len(counts) + 1`; outliers fall in the end bins."""

    step: int
    name: str
    edges: list[float]
    counts: list[int]


class SampleSummary(Record):
    """A sampled group, without its contents."""

    id: int
    step: int
    prompt_id: str
    mean_reward: float | None
    passed: int = Field(description="completions that passed")
    size: int = Field(description="completions in the group")


class Sample(SampleSummary):
    """A sampled group, whole. `group` has the shape that `calibrl_core.report.SampleGroup` documents."""

    group: dict[str, Any]


class Checkpoint(Record):
    """A checkpoint that a job has written and still keeps."""

    step: int
    path: str
    best: bool
    metrics: dict[str, float | str]
    created_at: datetime


class LogChunk(Record):
    """A part of the log, in bytes since its beginning; ask again with `after=next` for what follows."""

    text: str
    next: int


class Worker(Record):
    """A slot that runs jobs."""

    name: str
    host: str
    device: str = Field(description="cpu, or the GPU's index and name")
    status: Literal["idle", "busy", "stopping", "lost"]
    job_id: UUID | None
    heartbeat_at: datetime


class Health(Record):
    """Whether the service and each thing that it needs can be reached."""

    ok: bool
    checks: dict[str, str] = Field(default_factory=dict, description="ok, or what is wrong, by dependency")


class Page(BaseModel, Generic[T]):
    """One page of a list; ask again with `after` set to the last item's cursor while `has_more`."""

    data: list[T]
    has_more: bool
