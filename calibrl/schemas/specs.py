"""Specs of jobs, as clients submit them."""

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BeforeValidator, Field, Tag, TypeAdapter, model_validator

from calibrl.schemas.base import MAX_STEP, MONTH, Label, LabelKey, Name, Priority, Slug
from calibrl_core.algorithms import AlgorithmSettings
from calibrl_core.algorithms.registry import ALGORITHMS
from calibrl_core.auditing.settings import AuditSettings
from calibrl_core.bisection.settings import MOST_KEPT, BisectSettings
from calibrl_core.config import (
    BuiltinModel,
    EvaluateSettings,
    ModelOptions,
    PathModel,
    TrainSettings,
    check_model,
    check_training,
)
from calibrl_core.data.schema import (
    FORMAT,
    MOST_SOURCES,
    WEIGHT,
    BuiltinData,
    FileData,
    FormatName,
    HubData,
    check_weight,
    distinct_names,
)
from calibrl_core.settings.base import StrictSettings, one_of
from calibrl_core.settings.validation import ValidationSettings
from calibrl_core.variants.settings import WhatIfSettings


def _checkpoint(value: Any) -> Any:
    if value in ("best", "last") or (type(value) is int and 0 <= value <= MAX_STEP):
        return value
    raise ValueError("Must be best, last or a step: a whole number")


CheckpointChoice = Annotated[
    Literal["best", "last"] | Annotated[int, Field(ge=0, le=MAX_STEP)], BeforeValidator(_checkpoint)
]


class JobCheckpoint(StrictSettings):
    """A checkpoint of another job. `best` and `last` make that job a dependency. A step must exist already and adds
    no dependency."""

    from_job: UUID = Field(description="Id of a training job.")
    checkpoint: CheckpointChoice = Field(
        "best",
        description="best: by checkpoints.keep_best, or the latest if none is marked. last: the latest. Or a step.",
    )


class JobModel(JobCheckpoint, ModelOptions):
    """A model that another job has trained, from one of its checkpoints."""


class HubModel(ModelOptions):
    """A model of the Hugging Face hub with weights as safetensors, which the worker downloads. Code that comes with a
    model never runs."""

    hub: str = Field(
        pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$",
        max_length=200,
        description="Name of a model on the Hugging Face hub, such as Qwen/Qwen2.5-VL-7B-Instruct.",
    )
    revision: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        pattern=r"^[A-Za-z0-9][\w./-]*$",
        description="Branch, tag or commit. None: main. A submitted job has the commit of that moment here.",
    )


ModelChoice = Annotated[
    Annotated[BuiltinModel, Tag("builtin")]
    | Annotated[PathModel, Tag("path")]
    | Annotated[HubModel, Tag("hub")]
    | Annotated[JobModel, Tag("from_job")],
    one_of("builtin", "path", "hub", "from_job"),
]


class KnownData(StrictSettings):
    """A dataset that was uploaded to the service or registered with it."""

    dataset: UUID = Field(description="Id of a dataset in the project of the job.")
    answer: str | None = Field(
        None, min_length=1, max_length=200, description="Column with the answer. None: as registered with the dataset."
    )
    format: FormatName = FORMAT
    rows: int | None = Field(None, ge=1, description="Use only the first N rows. None: all.")
    weight: float = WEIGHT


DataChoice = Annotated[
    Annotated[BuiltinData, Tag("builtin")]
    | Annotated[FileData, Tag("path")]
    | Annotated[HubData, Tag("hub")]
    | Annotated[KnownData, Tag("dataset")],
    one_of("builtin", "path", "hub", "dataset"),
]


ChoiceList = Annotated[tuple[DataChoice, ...], Field(min_length=1, max_length=MOST_SOURCES)]
TrainingChoice = Annotated[
    Annotated[BuiltinData, Tag("builtin")]
    | Annotated[FileData, Tag("path")]
    | Annotated[HubData, Tag("hub")]
    | Annotated[KnownData, Tag("dataset")]
    | Annotated[ChoiceList, Tag("several")],
    one_of("builtin", "path", "hub", "dataset", several="several"),
]


class ValidationSpec(ValidationSettings):
    """Validation during training: sampled accuracy on validation data."""

    data: DataChoice


class Resources(StrictSettings):
    """Resources that a job occupies while it runs."""

    machines: int = Field(
        1, ge=1, le=64, description="Number of machines on which the job runs at the same time, as one training."
    )
    gpus: int = Field(
        0, ge=0, le=64, description="Number of GPUs on each machine, one process per GPU. 0: one CPU slot on each."
    )
    labels: dict[Slug, Label] = Field(
        default_factory=dict, max_length=32, description="Labels that a machine must have to run the job."
    )


class Limits(StrictSettings):
    """Limits that end a job. Times count run time only, over all attempts together."""

    timeout_seconds: float | None = Field(
        None, gt=0, le=MONTH, description="Maximum run time in seconds, over all attempts. None: no limit."
    )
    no_progress_seconds: float | None = Field(
        None, gt=0, le=MONTH, description="Maximum run time in seconds without a new step. None: no limit."
    )
    min_gpu_utilisation: float | None = Field(
        None,
        gt=0,
        le=100,
        description="Minimum utilisation in percent, averaged over gpu_idle_seconds and the GPUs of the job on its "
        "main machine. The first period below it gives a warning, the second in a row ends the job. None: no limit.",
    )
    gpu_idle_seconds: float = Field(
        600, gt=0, le=MONTH, description="Length in seconds of the period over which min_gpu_utilisation is averaged."
    )
    max_attempts: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Number of lost workers after which the job fails. None: as set for the service.",
    )


class JobSettings(StrictSettings):
    """Fields that the specs of all jobs have."""

    name: Name = Field(description="Name of the job. Names need not be unique.")
    project: Slug = "default"
    priority: Priority = "normal"
    labels: dict[LabelKey, Label] = Field(default_factory=dict, max_length=32)
    resources: Resources = Field(default_factory=Resources)
    limits: Limits = Field(default_factory=Limits)
    depends_on: tuple[UUID, ...] = Field(
        (), max_length=32, description="Ids of jobs that must succeed before this job starts."
    )


class TrainingParts(JobSettings, TrainSettings):
    """The fields of a training, with its model and data."""

    model: ModelChoice
    data: TrainingChoice = Field(description="One source, or a list of sources: their rows are mixed by weight.")
    validation: ValidationSpec | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        check_training(self, self.model, self.validation)
        if self.validation is not None:
            check_weight("validation.data", self.validation.data.weight)
        return self

    @property
    def sources(self) -> tuple[DataChoice, ...]:
        """Return the sources of the training data."""
        return self.data if isinstance(self.data, tuple) else (self.data,)

    def check_one_process(self, what: str) -> None:
        """Check that a job that takes steps of a training again runs in one process.

        Raises:
            ValueError: it does not.
        """
        if self.resources.machines > 1 or self.resources.gpus > 1:
            raise ValueError(f"resources: {what} runs in one process; set machines to 1, and gpus to 0 or 1")
        if self.rollout.engine != "shared_prefill":
            raise ValueError(f"rollout.engine: {what} samples with the trainer's own engine; set shared_prefill")


class TrainSpec(TrainingParts):
    """A training job."""

    kind: Literal["train"]


class WhatIfSpec(WhatIfSettings, TrainingParts):
    """A what-if: the update that follows a checkpoint of a training, beside those of other settings and algorithms. The
    other fields are those of the training; `POST /v1/jobs/{id}/what-if` fills them in."""

    kind: Literal["what_if"]
    checkpoint: JobCheckpoint

    @model_validator(mode="after")
    def _compares(self) -> Self:
        self.check_variants(self)
        self.check_one_process("a what-if")
        return self


class BisectSpec(BisectSettings, TrainingParts):
    """A bisection: the checkpoints of a training, of which a probe on the validation data finds the first bad one. The
    other fields are those of the training; `POST /v1/jobs/{id}/bisection` fills them in."""

    kind: Literal["bisect"]
    kept: tuple[JobCheckpoint, ...] = Field(
        min_length=2, max_length=MOST_KEPT, description="Checkpoints of the training, by step."
    )

    @model_validator(mode="after")
    def _can_be_probed(self) -> Self:
        self.check_alert(validates=self.validation is not None)
        self.check_one_process("a bisection")
        return self


class EvaluateSpec(JobSettings, EvaluateSettings):
    """An evaluation job: each model on each dataset."""

    kind: Literal["evaluate"]
    models: tuple[ModelChoice, ...] = Field(min_length=1, max_length=16)
    data: tuple[DataChoice, ...] = Field(min_length=1, max_length=32)

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        distinct_names([source for source in self.data if not isinstance(source, KnownData)])
        for index, source in enumerate(self.data):
            check_weight(f"data.{index}", source.weight)
        for index, model in enumerate(self.models):
            check_model(f"models.{index}", model, self.precision, self.rollout)
        return self


class AuditSpec(JobSettings, AuditSettings):
    """An audit of experts: whether each row's expert helps CalibRL with this model."""

    kind: Literal["audit"]
    model: ModelChoice
    data: DataChoice

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        check_weight("data", self.data.weight)
        check_model("model", self.model, self.precision, self.rollout)
        return self


AnySpec = TrainSpec | EvaluateSpec | AuditSpec | WhatIfSpec | BisectSpec
JobSpec = Annotated[AnySpec, Field(discriminator="kind")]
job_spec_adapter: TypeAdapter[AnySpec] = TypeAdapter(JobSpec)


def find_algorithm(name: str) -> type[AlgorithmSettings] | None:
    """Return an algorithm's settings class by its `type`; None if it is unknown here (its package is not installed)."""
    return ALGORITHMS.get(name)
