"""Names of the health rules, and their limits."""

from typing import Literal, Self

from pydantic import Field, model_validator

from calibrl_core.settings.base import StrictSettings

RuleName = Literal[
    "entropy_collapse",
    "entropy_explosion",
    "all_truncated",
    "no_advantage",
    "reward_not_accuracy",
    "verifier_failures",
    "no_verdicts",
    "length_explosion",
    "gradient_spikes",
    "sampler_mismatch",
    "expert_drift",
    "overfitting",
    "ignores_image",
]


class HealthSettings(StrictSettings):
    """Thresholds of the health rules."""

    pause_on: tuple[RuleName, ...] = Field(
        (), max_length=100, description="Rules that pause the job when they fire, after a checkpoint."
    )
    entropy_steps: int = Field(10, ge=1, le=1000, description="Steps over which entropy is averaged.")
    entropy_low: float = Field(
        0.02, ge=0, description="Absolute threshold in nats per token. Entropy below it counts as collapsed."
    )
    entropy_fall: float = Field(
        0.1, ge=0, lt=1, description="Share of the entropy of the first step. Entropy below it counts as collapsed."
    )
    entropy_high: float = Field(1.0, gt=0, description="Nats per token. Entropy below it never counts as exploded.")
    entropy_rise: float = Field(
        3.0, gt=1, description="Multiple of the entropy of the first step. Entropy above it counts as exploded."
    )
    truncated_steps: int = Field(5, ge=1, le=1000, description="Steps over which truncated completions are counted.")
    truncated_share: float = Field(
        0.95, gt=0, le=1, description="Share of truncated completions at which the rule fires."
    )
    idle_steps: int = Field(10, ge=1, le=1000, description="Consecutive steps in which no group has an advantage.")
    drift_steps: int = Field(20, ge=1, le=1000, description="Steps over which reward and accuracy are averaged.")
    drift_reward: float = Field(
        0.1,
        ge=0,
        description="Rise of the reward at which reward_not_accuracy and overfitting can fire, in standard deviations "
        "over rollouts.",
    )
    drift_accuracy: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="Fall below the best value, as a share, at which two rules can fire: of strict accuracy for "
        "reward_not_accuracy, of validation accuracy for overfitting. A higher rise of strict accuracy keeps "
        "expert_drift silent.",
    )
    failure_steps: int = Field(
        2,
        ge=1,
        le=1000,
        description="Steps over which failed scores of a verifier are counted. If all fail in each of these steps, "
        "the job pauses.",
    )
    failure_share: float = Field(
        0.1, gt=0, le=1, description="Share of failed scores of a verifier at which the rule fires."
    )
    length_steps: int = Field(10, ge=1, le=1000, description="Steps over which the length of completions is averaged.")
    length_rise: float = Field(
        2.0,
        gt=1,
        description="Multiple of the length when strict accuracy was best. Length above it counts as exploded.",
    )
    spike_steps: int = Field(
        20, ge=10, le=1000, description="Steps over which spikes of the gradient norm are counted."
    )
    spike_rise: float = Field(
        5.0, gt=1, description="Multiple of the median gradient norm of the steps before. A norm above it is a spike."
    )
    spike_count: int = Field(3, ge=1, le=1000, description="Number of spikes at which the rule fires.")
    mismatch_steps: int = Field(5, ge=1, le=1000, description="Steps over which kl/sampler is averaged.")
    mismatch_kl: float = Field(
        0.05, gt=0, description="Divergence of sampler and trainer at which the rule fires, in nats per token."
    )
    expert_steps: int = Field(
        20, ge=1, le=1000, description="Steps over which the negative log-likelihood of experts is averaged."
    )
    expert_high: float = Field(
        0.5, gt=0, description="Nats per token. A negative log-likelihood of experts below it never counts as drift."
    )
    expert_rise: float = Field(
        1.5, gt=1, description="Multiple of the experts' lowest negative log-likelihood. Above it counts as drift."
    )
    overfit_validations: int = Field(
        2, ge=1, le=100, description="Validations over which accuracy is averaged to detect overfitting."
    )
    image_measurements: int = Field(
        3, ge=1, le=1000, description="Measurements of image/gain_swap that are averaged (diagnostics.images_every)."
    )
    image_gain: float = Field(
        0.1,
        ge=0,
        description="Nats per completion. ignores_image fires if a completion loses less log-probability than this "
        "with the image of another prompt.",
    )

    @model_validator(mode="after")
    def _spikes_fit(self) -> Self:
        if self.spike_count > self.spike_steps:
            raise ValueError(
                f"spike_count ({self.spike_count}) must not exceed spike_steps ({self.spike_steps}): the rule could "
                "never fire"
            )
        return self
