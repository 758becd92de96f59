"""OpenAI's fine-tuning API, as far as jobs here can do what it asks: what its client posts, and what it reads back."""

import re
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema, field_validator

from calibrl_core.settings_base import Closed

AUTO = "auto"
OUTPUT = re.compile(r"\{\{\s*sample\.output_text\s*\}\}")
ITEM = re.compile(r"\{\{\s*item\.([^{}\s]{1,200})\s*\}\}")


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


class Hyperparameters(Closed):
    """What supervised fine-tuning may choose; None (`auto`): as the service sees fit."""

    n_epochs: Count = Field(None, description="times that every row is learned from")
    batch_size: Count = Field(None, description="rows (prompts) a step")
    learning_rate_multiplier: Factor = Field(None, description="of the algorithm's own learning rate")


class ReinforcementHyperparameters(Hyperparameters):
    """What reinforcement fine-tuning may choose."""

    compute_multiplier: Factor = Field(None, description="of the rollouts a prompt, which are 10")
    eval_interval: Count = Field(None, description="steps between validations")
    eval_samples: Count = Field(None, description="completions a prompt in a validation")
    reasoning_effort: Literal["default"] | None = Field(None, description="only the model's own")


class StringCheckGrader(Closed):
    """1 where the completion's answer equals a column of the row, else 0: the verifier `exact`."""

    type: Literal["string_check"]
    name: str = Field(max_length=200)
    input: str = Field(description="{{ sample.output_text }}", examples=["{{ sample.output_text }}"])
    reference: str = Field(description="a column: {{ item.NAME }}", examples=["{{ item.reference_answer }}"])
    operation: Literal["eq"]

    @field_validator("input")
    @classmethod
    def _the_output(cls, text: str) -> str:
        if not OUTPUT.fullmatch(text.strip()):
            raise ValueError("must be {{ sample.output_text }}: of it the <answer> counts")
        return text

    @field_validator("reference")
    @classmethod
    def _a_column(cls, text: str) -> str:
        if not ITEM.fullmatch(text.strip()):
            raise ValueError("must name a column of the rows, and nothing else: {{ item.reference_answer }}")
        return text

    @property
    def column(self) -> str:
        """The column that holds the answer."""
        found = ITEM.fullmatch(self.reference.strip())
        assert found is not None
        return found[1]


class SupervisedMethod(Closed):
    """Learning from the assistant's last messages."""

    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)


class ReinforcementMethod(Closed):
    """Learning by trial: a grader judges what the model samples."""

    grader: StringCheckGrader
    hyperparameters: ReinforcementHyperparameters = Field(default_factory=ReinforcementHyperparameters)

    @field_validator("grader", mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        if isinstance(given, dict) and (kind := given.get("type", "string_check")) != "string_check":
            raise ValueError(f"only string_check graders can be used here, not {kind!r}; POST /v1/jobs knows others")
        return given


class Method(Closed):
    """How to fine-tune."""

    type: Literal["supervised", "reinforcement"]
    supervised: SupervisedMethod | None = None
    reinforcement: ReinforcementMethod | None = None


class NewFineTuningJob(Closed):
    """A fine-tuning job, as OpenAI's client posts it."""

    model: str = Field(
        min_length=1,
        max_length=1024,
        description="tiny-vlm, the path of a saved model, a job (`ftjob-...`), or a fine-tuned model (`ft:...`)",
        examples=["tiny-vlm"],
    )
    training_file: str = Field(max_length=200, description="id of a file", examples=["file-0c4f2b1e..."])
    validation_file: str | None = Field(None, max_length=200, description="id of a file")
    method: Method | None = None
    hyperparameters: Hyperparameters | None = Field(None, description="of `supervised`, as older clients put it")
    suffix: str | None = Field(None, max_length=64, description="the job's name, part of the model's")
    seed: int | None = Field(None, ge=0, lt=2**31)
    metadata: dict[str, str] | None = Field(
        None,
        description="labels of the job, and: calibrl_algorithm, calibrl_gpus, calibrl_max_completion_tokens",
        examples=[{"calibrl_algorithm": "dapo"}],
    )
    integrations: list[Any] | None = Field(None, max_length=0, description="none")


class Named(BaseModel):
    """Something with an id."""

    id: str


T = TypeVar("T", bound=Named)


class OpenAIList(BaseModel, Generic[T]):
    """One page of a list; ask again with `after` set to the last one's id while `has_more`."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool
    first_id: str | None = None
    last_id: str | None = None


class FileObject(Named):
    """A data set that was uploaded."""

    object: Literal["file"] = "file"
    bytes: int
    created_at: int = Field(description="Unix time in seconds, as all times here")
    filename: str
    purpose: Literal["fine-tune"] = "fine-tune"
    status: Literal["processed"] = "processed"
    status_details: None = None
    expires_at: None = None


class FileDeleted(Named):
    """That a file is gone."""

    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class JobError(BaseModel):
    """Why a job failed."""

    code: str = Field(description="out_of_memory, crashed, bad_spec, ...")
    message: str
    param: None = None


class FineTuningJob(Named):
    """A training job."""

    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    error: JobError | None
    model: str
    fine_tuned_model: str | None = Field(description="once it has succeeded; names its best checkpoint")
    organization_id: str = Field(description="the project")
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
    """Something that happened in a job's life, or the metrics of one of its steps."""

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
    fine_tuned_model_checkpoint: str = Field(description="as `model` another job begins with it")
    step_number: int
    metrics: dict[str, Any]
