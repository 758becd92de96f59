"""Schemas of OpenAI's fine-tuning API, as far as this service supports it."""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from calibrl.schemas.graders import Grader
from calibrl_core.settings.base import StrictSettings

AUTO = "auto"


def _automatic(value: Any) -> Any:
    if isinstance(value, bool | str) and value != AUTO:
        raise ValueError(f"must be a number, or {AUTO!r}")
    return None if value == AUTO else value


def _or_auto(kind: str, **bounds: float) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"type": kind, **bounds}, {"const": AUTO}, {"type": "null"}]})


Count = Annotated[
    Annotated[int, Field(ge=1, le=65_536)] | None,
    BeforeValidator(_automatic),
    _or_auto("integer", minimum=1, maximum=65_536),
]
Factor = Annotated[
    Annotated[float, Field(gt=0, le=1e6)] | None,
    BeforeValidator(_automatic),
    _or_auto("number", exclusiveMinimum=0, maximum=1e6),
]


class Hyperparameters(StrictSettings):
    """Hyperparameters of supervised fine-tuning. None or `auto`: the service chooses."""

    n_epochs: Count = Field(None, description="Number of passes over all rows.")
    batch_size: Count = Field(None, description="Rows (prompts) per step.")
    learning_rate_multiplier: Factor = Field(None, description="Factor on the default learning rate of the algorithm.")


class ReinforcementHyperparameters(Hyperparameters):
    """Hyperparameters of reinforcement fine-tuning."""

    compute_multiplier: Factor = Field(None, description="Factor on the number of rollouts per prompt, which is 10.")
    eval_interval: Count = Field(None, description="Steps between validations.")
    eval_samples: Count = Field(None, description="Completions per prompt in a validation.")
    reasoning_effort: Literal["default"] | None = Field(None, description="Only `default` is supported.")


class SupervisedMethod(StrictSettings):
    """Supervised learning from the last assistant message of each row."""

    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)


class ReinforcementMethod(StrictSettings):
    """Reinforcement learning: a grader scores sampled completions."""

    grader: Grader
    hyperparameters: ReinforcementHyperparameters = Field(default_factory=ReinforcementHyperparameters)


class Method(StrictSettings):
    """Method of fine-tuning."""

    type: Literal["supervised", "reinforcement"]
    supervised: SupervisedMethod | None = None
    reinforcement: ReinforcementMethod | None = None


class NewFineTuningJob(StrictSettings):
    """A new fine-tuning job in the format of OpenAI's client."""

    model: str = Field(
        min_length=1,
        max_length=1024,
        description="Model to start from: tiny-vlm, the path of a saved model, a job (`ftjob-...`), or a fine-tuned "
        "model (`ft:...`).",
        examples=["tiny-vlm"],
    )
    training_file: str = Field(
        max_length=200, description="Id of the file with training data.", examples=["file-0c4f2b1e..."]
    )
    validation_file: str | None = Field(None, max_length=200, description="Id of the file with validation data.")
    method: Method | None = None
    hyperparameters: Hyperparameters | None = Field(
        None, description="Hyperparameters of `supervised`, in the place where older clients send them."
    )
    suffix: str | None = Field(None, max_length=64, description="Name of the job, and part of the name of the model.")
    seed: int | None = Field(None, ge=0, lt=2**31)
    metadata: dict[Annotated[str, Field(max_length=1024)], Annotated[str, Field(max_length=1024)]] | None = Field(
        None,
        max_length=64,
        description="Labels of the job. Three keys are settings: calibrl_algorithm, calibrl_gpus, "
        "calibrl_max_completion_tokens.",
        examples=[{"calibrl_algorithm": "dapo"}],
    )
    integrations: list[Any] | None = Field(None, max_length=0, description="Not supported: must be empty.")


class Named(BaseModel):
    """An object with an id."""

    id: str


T = TypeVar("T", bound=Named)


class OpenAIList(BaseModel, Generic[T]):
    """One page of a list. While `has_more`, send `after` with the id of the last item."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool
    first_id: str | None = None
    last_id: str | None = None


class FileObject(Named):
    """An uploaded dataset."""

    object: Literal["file"] = "file"
    bytes: int
    created_at: int = Field(description="Unix time in seconds, like all times in this API.")
    filename: str
    purpose: Literal["fine-tune"] = "fine-tune"
    status: Literal["processed"] = "processed"
    status_details: str | None = None
    expires_at: int | None = None


class ModelObject(Named):
    """A model that a new job can start from."""

    object: Literal["model"] = "model"
    created: int = Field(description="Unix time in seconds of the end of its training; of the built-in model 0.")
    owned_by: str = Field(description="Project of its training job; of the built-in model `calibrl`.")


class FileDeleted(Named):
    """Confirmation that a file is deleted."""

    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class JobError(BaseModel):
    """Reason why a job failed."""

    code: str = Field(description="Reason of the failure: out_of_memory, crashed, bad_spec and others.")
    message: str
    param: str | None = None


class FineTuningJob(Named):
    """A training job."""

    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    error: JobError | None
    model: str
    fine_tuned_model: str | None = Field(
        description="Name of the model, which refers to the best checkpoint. null until the job has succeeded."
    )
    organization_id: str = Field(description="Project of the job.")
    training_file: str
    validation_file: str | None
    result_files: list[str]
    hyperparameters: dict[str, Any]
    method: dict[str, Any]
    seed: int
    trained_tokens: int | None
    integrations: list[Any]
    metadata: dict[str, str]


class FineTuningEvent(Named):
    """An event of a job, or the metrics of one of its steps."""

    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]


class FineTuningCheckpoint(Named):
    """A checkpoint that a job keeps."""

    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str = Field(
        description="Name of the checkpoint, which another job can use as `model`."
    )
    step_number: int
    metrics: dict[str, Any]
