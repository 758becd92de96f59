"""Content of a bisection: the probed policies, the first bad update, and changes for a fork before it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from calibrl_core.health.settings import RuleName

Measure = Literal["accuracy", "entropy", "length", "truncated"]


class _BisectionFacts(BaseModel):
    model_config = ConfigDict(frozen=True)


class ProbedPolicy(_BisectionFacts):
    """The policy after a step, measured on the probe. Differences are paired by prompt."""

    step: int
    replayed: bool = Field(description="True: the bisection took the step again. False: a kept checkpoint.")
    value: float = Field(description="Mean of the measure over the prompts.")
    difference: float = Field(description="The value minus that of the reference.")
    low: float = Field(description="Lower bound of its 95 % interval.")
    high: float = Field(description="Upper bound of its 95 % interval.")
    worse: bool = Field(description="Worse than the reference by more than the noise of the probe.")


class GroupGradient(_BisectionFacts):
    """A group of the bad update, with its part of the gradient."""

    prompt_id: str
    prompt: str = Field(description="Text of the prompt, shortened in the middle.")
    gradient_norm: float = Field(description="L2 norm of the group's part of the gradient, before clipping.")
    rollouts: int
    passed: int = Field(description="Number of rollouts that passed.")
    reward: float = Field(description="Mean reward.")
    completion: str = Field(description="The rollout with the largest advantage by size, shortened in the middle.")
    advantage: float = Field(description="Its advantage.")


class BadUpdate(_BisectionFacts):
    """The first step after which the probe is worse."""

    step: int
    learning_rate: float
    gradient_norm: float | None = Field(description="loss/grad_norm of the step. None: not finite.")
    groups: list[GroupGradient] = Field(
        description="Up to 8 groups with the largest gradients, of those that have one. Empty if the algorithm samples "
        "nothing."
    )


class SpecChange(_BisectionFacts):
    """A change of the spec for a fork."""

    changes: dict[str, object] = Field(description="Merge patch of the spec, as a fork takes it.")
    reason: str


class Bisection(_BisectionFacts):
    """The point at which a training became worse, by a probe on its validation data."""

    rule: RuleName
    fired_step: int
    measure: Measure = Field(description="Measure of the probe, by the rule.")
    prompts: int = Field(description="Number of prompts of the probe.")
    samples: int = Field(description="Completions per prompt.")
    reference_step: int = Field(description="Step of the checkpoint that the others are compared with.")
    probes: list[ProbedPolicy] = Field(description="In the order of measurement; the reference first.")
    last_good: int = Field(description="Step of the last checkpoint that is not worse: fork from it.")
    first_bad: int | None = Field(description="Step of the first checkpoint that is worse. None: none is.")
    update: BadUpdate | None = Field(
        description="The first bad update. None: no checkpoint is worse, or the steps taken again did not repeat it."
    )
    changes: list[SpecChange] = Field(description="Changes for a fork from `last_good`, the first choice first.")
