"""Graders of OpenAI's reinforcement fine-tuning, and what a run of one returns."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from calibrl_core.settings.base import StrictSettings
from calibrl_core.verifiers.formula import LONGEST as LONGEST_FORMULA
from calibrl_core.verifiers.judge import Effort
from calibrl_core.verifiers.string_check import Template
from calibrl_core.verifiers.text_similarity import Measure

Name = Annotated[str, Field(min_length=1, max_length=200)]
Threshold = Annotated[
    float | None, Field(description="Without effect: a completion passes with at least half of the range.")
]


class StringCheckGrader(StrictSettings):
    """Score 1 if an operation holds between two texts, else 0."""

    type: Literal["string_check"]
    name: Name
    input: Template = Field(description="Text to check.", examples=["{{ sample.output_text }}"])
    reference: Template = Field(description="Text to compare with.", examples=["{{ item.reference_answer }}"])
    operation: Literal["eq", "ne", "like", "ilike"]


class TextSimilarityGrader(StrictSettings):
    """Similarity of two texts, 0 to 1."""

    type: Literal["text_similarity"]
    name: Name
    input: Template
    reference: Template
    evaluation_metric: Measure | Literal["cosine"] = Field(
        description="cosine: of embeddings, from the configured endpoint `embeddings`."
    )
    pass_threshold: Threshold = None


class GraderPart(StrictSettings):
    """A part of a message to a model."""

    type: Literal["input_text", "output_text", "text", "input_image"]
    text: Template | None = None
    image_url: Template | None = Field(
        None, description="URL or data URL; {{ item.COLUMN }} means all images of the prompt."
    )
    detail: Literal["auto", "low", "high"] | None = Field(None, description="Without effect.")


class GraderMessage(StrictSettings):
    """A message to a model."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Template | GraderPart | Annotated[list[Template | GraderPart], Field(max_length=32)]
    type: Literal["message"] | None = None


class SamplingParams(StrictSettings):
    """Sampling of the model that grades."""

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=0, lt=2**31)
    max_completions_tokens: int | None = Field(None, ge=1, le=65_536)
    max_tokens: int | None = Field(None, ge=1, le=65_536, description="Another name of max_completions_tokens.")
    reasoning_effort: Effort | None = Field(None, description="Passed on to the endpoint.")

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if self.max_tokens is not None and self.max_completions_tokens is not None:
            raise ValueError("max_tokens and max_completions_tokens are one setting: set one of them")
        return self


class ScoreModelGrader(StrictSettings):
    """Score of a model at a configured endpoint."""

    type: Literal["score_model"]
    name: Name
    model: Name = Field(description="ENDPOINT/MODEL; without ENDPOINT/: at the only endpoint, or at `default`.")
    input: list[GraderMessage] = Field(min_length=1, max_length=32)
    range: tuple[float, float] | None = Field(None, description="Lowest and highest score. null: 0 and 1.")
    pass_threshold: Threshold = None
    sampling_params: SamplingParams | None = None


class LabelModelGrader(StrictSettings):
    """Score 1 if a model chooses a passing label, else 0."""

    type: Literal["label_model"]
    name: Name
    model: Name = Field(description="ENDPOINT/MODEL, see ScoreModelGrader.")
    input: list[GraderMessage] = Field(min_length=1, max_length=32)
    labels: list[Name] = Field(min_length=2, max_length=64)
    passing_labels: list[Name] = Field(min_length=1, max_length=64)
    sampling_params: SamplingParams | None = None


class PythonGrader(StrictSettings):
    """Score of a function `grade(sample, item)` in a sandbox."""

    type: Literal["python"]
    name: Name
    source: str = Field(max_length=262_144, description="Python source with def grade(sample, item).")
    image_tag: str | None = Field(None, max_length=200, description="Without effect: there is one environment.")


SingleGrader = Annotated[
    StringCheckGrader | TextSimilarityGrader | ScoreModelGrader | LabelModelGrader | PythonGrader,
    Field(discriminator="type"),
]


class MultiGrader(StrictSettings):
    """Value of a formula over the scores of other graders."""

    type: Literal["multi"]
    name: Name = "multi"
    graders: dict[str, SingleGrader] = Field(min_length=1, max_length=16, description="Graders by name in the formula.")
    calculate_output: str = Field(min_length=1, max_length=LONGEST_FORMULA, description="The formula.")

    @field_validator("graders", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """Take one grader alone, as the types of OpenAI's client say, by its own name."""
        if isinstance(value, dict) and isinstance(value.get("type"), str):
            return {value.get("name", "grader"): value}
        return value


Grader = Annotated[
    StringCheckGrader | TextSimilarityGrader | ScoreModelGrader | LabelModelGrader | PythonGrader | MultiGrader,
    Field(discriminator="type"),
]


class GraderToValidate(StrictSettings):
    """A grader to check."""

    grader: Grader


class ValidGrader(BaseModel):
    """A grader that jobs can use, with its defaults."""

    grader: dict[str, Any]


class GraderToRun(GraderToValidate):
    """A grader to run on one output of a model."""

    model_sample: str = Field(max_length=200_000, description="Output of the model: `sample.output_text`.")
    item: dict[str, Any] = Field(default_factory=dict, max_length=1000, description="Row of the data: `item`.")


class GraderErrors(BaseModel):
    """Reasons why a grader gave no score."""

    formula_parse_error: bool = False
    invalid_variable_error: bool = False
    model_grader_parse_error: bool = False
    model_grader_refusal_error: bool = False
    model_grader_server_error: bool = False
    model_grader_server_error_details: str | None = None
    other_error: bool = False
    python_grader_runtime_error: bool = False
    python_grader_runtime_error_details: str | None = None
    python_grader_server_error: bool = False
    python_grader_server_error_type: str | None = None
    sample_parse_error: bool = False
    truncated_observation_error: bool = False
    unresponsive_reward_error: bool = False


class GraderMetadata(BaseModel):
    """Report of a run of a grader."""

    name: str
    type: str
    errors: GraderErrors
    execution_time: float = Field(description="Seconds.")
    scores: dict[str, float]
    sampled_model_name: str | None = None
    token_usage: int | None = None


class GraderRun(BaseModel):
    """Result of a run of a grader."""

    reward: float = Field(description="0 if there is no score; `metadata.errors` has the reason.")
    sub_rewards: dict[str, float] = Field(description="Scores of the graders of a multi grader.")
    metadata: GraderMetadata
    model_grader_token_usage_per_model: dict[str, Any] = Field(default_factory=dict)
