"""The contract of the service: what a client posts, and what it reads back. Pydantic only; no database, no torch."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, Tag, TypeAdapter

from calibrl_core.closed import Closed, one_of
from calibrl_core.config import BuiltinModel, EvaluateSettings, ModelOptions, PathModel, TrainSettings

T = TypeVar("T")

MONTH = 31 * 86_400.0  # seconds
MOST = 1_000_000  # of what a project may have; a table's integers hold no more than 2e9

Name = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._\-]*$")]
Slug = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][a-z0-9\-]*$")]
Label = Annotated[str, Field(max_length=200)]
Priority = Literal["low", "normal", "high"]


class JobStatus(StrEnum):
    """Where a job stands. `waiting`: for a job that it depends on. The last three are final: only a person's `retry`
    takes a job out of the last two."""

    QUEUED = "queued"
    WAITING = "waiting"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)

    @property
    def held(self) -> bool:
        """Whether a worker holds it: it takes a slot."""
        return self in (JobStatus.RUNNING, JobStatus.PAUSING, JobStatus.CANCELLING)


class Reason(StrEnum):
    """Why a job's status changed, where there is a reason to tell."""

    USER = "user"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out_of_memory"
    NON_FINITE = "non_finite"
    BAD_SPEC = "bad_spec"
    HEALTH = "health"
    DISK_FULL = "disk_full"
    QUOTA = "quota"
    TIMED_OUT = "timed_out"
    NO_PROGRESS = "no_progress"
    IDLE_GPU = "idle_gpu"
    LOST_WORKER = "lost_worker"
    WORKER_STOPPED = "worker_stopped"
    PREEMPTED = "preempted"
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

    gpus: int = Field(0, ge=0, le=64, description="GPUs, all of one machine; 0: a CPU slot")
    labels: dict[Slug, Label] = Field(
        default_factory=dict, max_length=32, description="only machines whose labels include these"
    )


class Limits(Closed):
    """When a job is ended for its own good. Times count while it runs, over all attempts together."""

    timeout_seconds: float | None = Field(None, gt=0, le=MONTH, description="most time that it may run")
    no_progress_seconds: float | None = Field(None, gt=0, le=MONTH, description="most time without a new step")
    min_gpu_utilisation: float | None = Field(
        None,
        gt=0,
        le=100,
        description="percent, the mean of its GPUs over gpu_idle_seconds; below it a warning, twice in a row the end",
    )
    gpu_idle_seconds: float = Field(600, gt=0, le=MONTH, description="what min_gpu_utilisation is a mean over")
    max_attempts: int | None = Field(
        None, ge=1, le=100, description="lost workers after which it fails; None: as the service is set"
    )


class JobSettings(Closed):
    """What every job says about itself, whatever it does."""

    name: Name = Field(description="for people; need not be unique")
    project: Slug = "default"
    priority: Priority = "normal"
    labels: dict[Slug, Label] = Field(default_factory=dict, max_length=32)
    resources: Resources = Field(default_factory=Resources)
    limits: Limits = Field(default_factory=Limits)
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


class JobChanges(Closed):
    """What may be changed of a job that has been submitted."""

    priority: Priority = Field(description="its class: a higher one goes first")


class Job(Record):
    """A job as clients see it."""

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


class WorkerStatus(StrEnum):
    """Whether a machine takes jobs. `draining`: it finishes what it runs and takes no more. `stopping`: it gives back
    what it runs, from a checkpoint. `lost`: nothing was heard of it. `offline`: it ended in order."""

    ONLINE = "online"
    DRAINING = "draining"
    STOPPING = "stopping"
    LOST = "lost"
    OFFLINE = "offline"


class GpuReading(Record):
    """How a GPU of a machine stands. Memory in bytes."""

    index: int
    name: str
    uuid: str
    memory_total: int
    memory_used: int
    utilisation: float = Field(description="percent")


class Gpu(GpuReading):
    """A GPU of a machine, as last heard, and who may use it."""

    job_id: UUID | None = Field(description="who holds it")
    clean: bool = Field(description="its memory is free again since its last job; only then is it given to another")


class Worker(Record):
    """A machine that runs jobs."""

    name: str
    host: str
    labels: dict[str, str]
    versions: dict[str, str]
    status: WorkerStatus
    cpu_slots: int = Field(description="jobs without a GPU that it runs at once")
    gpus: list[Gpu]
    jobs: list[UUID] = Field(description="what it runs")
    heartbeat_at: datetime


class Drain(Closed):
    """How a machine is to be drained."""

    now: bool = Field(False, description="give back what it runs, from a checkpoint, in place of finishing it")


class WaitReason(StrEnum):
    """Why a queued job does not start now."""

    NO_MACHINE = "no_machine"  # none that is up has so many GPUs, or its labels
    BUSY = "busy"  # every slot that would do is taken
    RESERVED = "reserved"  # what is free is kept for a job before it
    PROJECT_LIMIT = "project_limit"  # its project runs as many GPUs as it may
    BUDGET = "budget"  # its project, or its user there, has used up the month's slot-hours
    WAITING = "waiting"  # for jobs that it depends on
    PAUSED = "paused"


class QueueEntry(Record):
    """A job that has not started, and why."""

    job_id: UUID
    name: str
    project: str
    user: str
    priority: Priority
    gpus: int
    status: JobStatus
    position: int | None = Field(description="1: the next; None where it isn't in line")
    reason: WaitReason | None = Field(description="None: it is about to start")
    explanation: str = Field(description="the reason in a sentence")
    estimated_start: datetime | None = Field(description="None where it can't be told")
    queued_at: datetime


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


class Health(Record):
    """Whether the service and each thing that it needs can be reached."""

    ok: bool
    checks: dict[str, str] = Field(default_factory=dict, description="ok, or what is wrong, by dependency")


class Page(BaseModel, Generic[T]):
    """One page of a list; ask again with `after` set to the last item's cursor while `has_more`."""

    data: list[T]
    has_more: bool
