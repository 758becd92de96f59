"""What a client posts: the spec of a job."""

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BeforeValidator, Field, Tag, TypeAdapter, model_validator

from calibrl.schemas.base import MONTH, Label, LabelKey, Name, Priority, Slug
from calibrl_core.config import (
    BuiltinModel,
    EvaluateSettings,
    ModelOptions,
    PathModel,
    TrainSettings,
    ValidationSettings,
    distinct_names,
)
from calibrl_core.data.schema import BuiltinData, FileData, HubData
from calibrl_core.settings_base import Closed, one_of

BIGGEST_STEP = 2**31 - 1


def _checkpoint(value: Any) -> Any:
    if value in ("best", "last") or (type(value) is int and 0 <= value <= BIGGEST_STEP):
        return value
    raise ValueError("Must be best, last or a step: a whole number")


CheckpointChoice = Annotated[
    Literal["best", "last"] | Annotated[int, Field(ge=0, le=BIGGEST_STEP)], BeforeValidator(_checkpoint)
]


class JobModel(ModelOptions):
    """A checkpoint of another job. For its best or last that job becomes a dependency; one of a certain step must be
    there already, and nothing is waited for."""

    from_job: UUID = Field(description="id of a training job")
    checkpoint: CheckpointChoice = Field(
        "best", description="best: by checkpoints.keep_best, else the newest; last: the newest; or a step"
    )


ModelChoice = Annotated[
    Annotated[BuiltinModel, Tag("builtin")] | Annotated[PathModel, Tag("path")] | Annotated[JobModel, Tag("from_job")],
    one_of("builtin", "path", "from_job"),
]


class KnownData(Closed):
    """A data set that was uploaded to the service, or registered with it."""

    dataset: UUID = Field(description="id of a data set of the job's project")
    answer: str | None = Field(
        None, min_length=1, max_length=200, description="the column with the answer; None: as the data set says"
    )
    rows: int | None = Field(None, ge=1, description="only the first rows; None: all")


DataChoice = Annotated[
    Annotated[BuiltinData, Tag("builtin")]
    | Annotated[FileData, Tag("path")]
    | Annotated[HubData, Tag("hub")]
    | Annotated[KnownData, Tag("dataset")],
    one_of("builtin", "path", "hub", "dataset"),
]


class ValidationSpec(ValidationSettings):
    """Sampled accuracy on held-out data while training."""

    data: DataChoice


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
    labels: dict[LabelKey, Label] = Field(default_factory=dict, max_length=32)
    resources: Resources = Field(default_factory=Resources)
    limits: Limits = Field(default_factory=Limits)
    depends_on: tuple[UUID, ...] = Field((), max_length=32, description="jobs that must succeed first")


class TrainSpec(JobSettings, TrainSettings):
    """A training job."""

    kind: Literal["train"]
    model: ModelChoice
    data: DataChoice
    validation: ValidationSpec | None = None


class EvaluateSpec(JobSettings, EvaluateSettings):
    """An evaluation job: every model on every data set."""

    kind: Literal["evaluate"]
    models: tuple[ModelChoice, ...] = Field(min_length=1, max_length=16)
    data: tuple[DataChoice, ...] = Field(min_length=1, max_length=32)

    @model_validator(mode="after")
    def _named_apart(self) -> Self:
        distinct_names([source for source in self.data if not isinstance(source, KnownData)])
        return self


JobSpec = Annotated[TrainSpec | EvaluateSpec, Field(discriminator="kind")]
job_spec_adapter: TypeAdapter[TrainSpec | EvaluateSpec] = TypeAdapter(JobSpec)
