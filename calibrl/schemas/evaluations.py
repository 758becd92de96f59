"""What evaluations found, how two models compare, and stored completions scored again."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, ValidationInfo, field_validator

from calibrl.schemas.base import Record
from calibrl_core.config import usable_rewards
from calibrl_core.settings_base import Closed
from calibrl_core.verifiers import Reward

MOST_COMPLETIONS = 5000  # that are scored again at once
LONGEST_VERDICT = 5.0  # seconds
Place = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Measured(Record):
    """A mean over prompts, with the bounds of its 95 % interval where it has one."""

    value: float | None = Field(description="null: not a finite number")
    low: float | None = None
    high: float | None = None


class SourceResult(Record):
    """One `data_source` of a data set."""

    prompts: int
    metrics: dict[str, Measured]


class EvaluationResult(Record):
    """One model on one data set."""

    model: str = Field(description="what the worker loaded: a path, or a built-in model's name")
    model_index: int = Field(description="its place in the spec's `models`")
    chosen: dict[str, Any] = Field(description="as the spec names it there")
    split: str = Field(description="the data set's name")
    prompts: int
    samples: int = Field(description="sampled completions a prompt")
    metrics: dict[str, Measured] = Field(
        description="accuracy, pass_at_k, greedy_accuracy, ...: see docs/reference/metrics.md"
    )
    sources: dict[str, SourceResult] = Field(description="by the `data_source` that the rows name")


class PairedDifference(Record):
    """The second model's mean accuracy minus the first's over the same prompts, with its bootstrap 95 % interval."""

    first: int = Field(description="its place in the list of models")
    second: int
    difference: float
    low: float
    high: float
    distinguishable: bool = Field(description="false: the interval covers 0")


class SplitDifference(PairedDifference):
    """A paired difference on one data set."""

    split: str


class Evaluation(Record):
    """What an evaluation found."""

    job_id: UUID
    results: list[EvaluationResult]
    comparisons: list[SplitDifference] = Field(description="of every two of its models; first and second: model_index")


class ComparedModel(Record):
    """A model that is compared."""

    job_id: UUID
    job: str = Field(description="the evaluation's name")
    model_index: int
    model: str
    chosen: dict[str, Any]
    accuracy: float = Field(description="mean share of a prompt's samples that passed")


class Comparison(Record):
    """Two models or more on the same prompts of one data set."""

    split: str
    prompts: int
    seed: int = Field(description="of the bootstrap")
    models: list[ComparedModel]
    pairs: list[PairedDifference] = Field(description="of every two; first and second: places in `models`")
    settings_differ: list[str] = Field(description="what else the evaluations have not in common: rewards, rollout")


class ReplayRequest(Closed):
    """Which completions to score again, and with what."""

    rewards: tuple[Reward, ...] = Field(min_length=1, max_length=16)
    first_step: Place = Field(0, description="only completions of this step and later ones")
    last_step: Place | None = Field(None, description="only completions up to this step")
    limit: int = Field(1000, ge=1, le=MOST_COMPLETIONS, description="most completions to score")

    @field_validator("rewards")
    @classmethod
    def _usable(cls, rewards: tuple[Reward, ...]) -> tuple[Reward, ...]:
        usable_rewards(rewards)
        if any(reward.time_limit_seconds > LONGEST_VERDICT for reward in rewards):
            raise ValueError(f"time_limit_seconds is {LONGEST_VERDICT:g} at most when completions are scored again")
        return rewards

    @field_validator("last_step")
    @classmethod
    def _in_order(cls, last: int | None, info: ValidationInfo) -> int | None:
        if last is not None and last < info.data.get("first_step", 0):
            raise ValueError("lies before first_step")
        return last


class Rescored(Record):
    """A completion that now passes and did not, or the other way round; or one on which a verifier gave no verdict."""

    sample_id: int
    step: int
    prompt_id: str
    completion: int = Field(description="its place in the group, from 0")
    reward_before: float | None = Field(description="null: not a finite number")
    reward_after: float
    passed_before: bool
    passed_after: bool
    by_verifier: dict[str, float] = Field(description="the new verdicts, before weights")
    failure: str | None = Field(description="why a verifier gave no verdict, which counts as 0")


class Replay(Record):
    """What other verifiers say of a job's stored completions."""

    job_id: UUID
    completions: int = Field(description="stored of these steps")
    scored: int = Field(description="of them: the first ones")
    stopped: str | None = Field(description="why not all were scored")
    passed_before: int = Field(description="of those scored")
    passed_after: int
    now_passed: int = Field(description="that pass and did not")
    now_failed: int = Field(description="that passed and do not")
    rewards_changed: int
    failures: int = Field(description="completions on which a verifier gave no verdict")
    versions: dict[str, str] = Field(description="of the plugins")
    data: list[Rescored] = Field(description="those that flip, and those without a verdict")
