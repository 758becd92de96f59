"""Results of evaluations, comparisons of models, and replays of verifiers on stored completions."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, ValidationInfo, field_validator

from calibrl.schemas.base import MAX_STEP, Record
from calibrl_core.config import usable_rewards
from calibrl_core.settings.base import StrictSettings
from calibrl_core.verifiers.registry import Reward

MAX_REPLAY_COMPLETIONS = 5000  # that are scored again at once
MAX_REPLAY_VERDICT_SECONDS = 5.0  # seconds
StepNumber = Annotated[int, Field(ge=0, le=MAX_STEP)]


class Measured(Record):
    """A mean over prompts, with the bounds of its 95 % interval if it has one."""

    value: float | None = Field(description="Mean. null: not a finite number.")
    low: float | None = None
    high: float | None = None


class SourceResult(Record):
    """Results for one `data_source` of a dataset."""

    prompts: int
    metrics: dict[str, Measured]


class EvaluationResult(Record):
    """Results of one model on one dataset."""

    model: str = Field(description="Model that the worker loaded: a path, or the name of a built-in model.")
    model_index: int = Field(description="Index of the model in `models` of the spec, from 0.")
    chosen: dict[str, Any] = Field(description="Model as the spec names it.")
    chosen_name: str | None = Field(
        None, description="Name of the job in `chosen`. null: it names no job, or one that you cannot see."
    )
    split: str = Field(description="Name of the dataset.")
    prompts: int
    samples: int = Field(description="Sampled completions per prompt.")
    metrics: dict[str, Measured] = Field(
        description="Values of accuracy, pass_at_k, greedy_accuracy and others, by name. The metrics reference "
        "explains each."
    )
    sources: dict[str, SourceResult] = Field(description="Results per `data_source` value of the rows.")


class PairedDifference(Record):
    """Mean accuracy of the second model minus that of the first on the same prompts, with its bootstrap 95 %
    interval."""

    first: int = Field(description="Index of the first model in the list of models, from 0.")
    second: int
    difference: float
    low: float
    high: float
    distinguishable: bool = Field(description="False: the interval contains 0.")


class SplitDifference(PairedDifference):
    """A paired difference on one dataset."""

    split: str


class Evaluation(Record):
    """Results of an evaluation."""

    job_id: UUID
    rollout: dict[str, Any] | None = Field(
        None,
        description="Settings of sampling, as `rollout` of the spec. null: the version of that time did not store it.",
    )
    results: list[EvaluationResult]
    comparisons: list[SplitDifference] = Field(
        description="Comparison of each pair of its models. `first` and `second` are values of `model_index`."
    )


class ComparedModel(Record):
    """A model in a comparison."""

    job_id: UUID
    job: str = Field(description="Name of the evaluation.")
    model_index: int
    model: str
    chosen: dict[str, Any]
    chosen_name: str | None = Field(
        None, description="Name of the job in `chosen`. null: it names no job, or one that you cannot see."
    )
    accuracy: float = Field(description="Share of a prompt's samples that passed, averaged over prompts (0 to 1).")


class Comparison(Record):
    """Comparison of two or more models on the same prompts of one dataset."""

    split: str
    prompts: int
    seed: int = Field(description="Seed of the bootstrap.")
    models: list[ComparedModel]
    pairs: list[PairedDifference] = Field(
        description="Comparison of each pair of models. `first` and `second` are indices in `models`."
    )
    settings_differ: list[str] = Field(
        description="Settings that differ between the evaluations besides the model, such as rewards or rollout.top_p."
    )


class SplitAccuracies(Record):
    """Accuracy per prompt of one model on one dataset: the share of its samples that passed."""

    model_index: int = Field(description="Index of the model in `models` of the spec, from 0.")
    split: str = Field(description="Name of the dataset.")
    prompts: list[str] = Field(
        description="Digest of each prompt, in the order of the data: what the model sees, and the right answer."
    )
    values: list[float] = Field(description="Accuracy of each prompt (0 to 1), in the same order.")


class ReplayRequest(StrictSettings):
    """Completions to score again, and the verifiers to use."""

    rewards: tuple[Reward, ...] = Field(min_length=1, max_length=16)
    first_step: StepNumber = Field(0, description="First step whose completions are scored.")
    last_step: StepNumber | None = Field(
        None, description="Last step whose completions are scored. None: the last step of the job."
    )
    limit: int = Field(1000, ge=1, le=MAX_REPLAY_COMPLETIONS, description="Maximum number of completions to score.")

    @field_validator("rewards")
    @classmethod
    def _usable(cls, rewards: tuple[Reward, ...]) -> tuple[Reward, ...]:
        usable_rewards(rewards)
        if any(reward.time_limit_seconds > MAX_REPLAY_VERDICT_SECONDS for reward in rewards):
            raise ValueError(
                f"time_limit_seconds is {MAX_REPLAY_VERDICT_SECONDS:g} at most when completions are scored again"
            )
        return rewards

    @field_validator("last_step")
    @classmethod
    def _in_order(cls, last: int | None, info: ValidationInfo) -> int | None:
        if last is not None and last < info.data.get("first_step", 0):
            raise ValueError("lies before first_step")
        return last


class Rescored(Record):
    """A completion that passes now and failed in the run, or vice versa, or that has no score."""

    sample_id: int
    step: int
    prompt_id: str
    completion: int = Field(description="Index of the completion in its group, from 0.")
    reward_before: float | None = Field(description="Reward in the run. null: not a finite number.")
    reward_after: float
    passed_before: bool
    passed_after: bool
    by_verifier: dict[str, float] = Field(description="New score of each verifier, before weights.")
    failure: str | None = Field(description="Reason why a verifier returned no score. A missing score counts as 0.")


class RescoredStep(Record):
    """Completions of one step that were scored again."""

    step: int
    scored: int
    passed_before: int
    passed_after: int


class Replay(Record):
    """Scores of other verifiers for the stored completions of a job."""

    job_id: UUID
    completions: int = Field(description="Number of stored completions in these steps.")
    scored: int = Field(description="Number of completions that were scored, in the order in which they are stored.")
    stopped: str | None = Field(description="Reason why not all completions were scored.")
    passed_before: int = Field(description="Number of scored completions that passed in the run.")
    passed_after: int
    now_passed: int = Field(description="Number of completions that pass now and failed in the run.")
    now_failed: int = Field(description="Number of completions that fail now and passed in the run.")
    rewards_changed: int
    failures: int = Field(description="Number of completions for which a verifier returned no score.")
    versions: dict[str, str] = Field(description="Version of each plugin.")
    by_step: list[RescoredStep] = Field(description="Scored completions by step: the curve of accuracy, scored again.")
    data: list[Rescored] = Field(description="Completions whose result changed, and completions without a score.")
