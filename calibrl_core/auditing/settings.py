"""Settings of an audit of experts: `AuditConfig`. StrictSettings, bounded, and importable without torch."""

from typing import Self

from pydantic import Field, model_validator

from calibrl_core.algorithms import CalibRL
from calibrl_core.config import DEFAULT_REWARDS, ForwardPrecision, ModelSource, check_model, usable_rewards
from calibrl_core.data.prompts import PromptFormat
from calibrl_core.data.schema import DataSource, check_weight
from calibrl_core.settings.base import StrictSettings
from calibrl_core.settings.sampling import EngineSettings
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.sandbox import NO_PERMISSIONS, SandboxPolicy


class AuditRollout(EngineSettings):
    """Sampling of completions in an audit."""

    group_size: int = Field(
        8, ge=2, le=256, description="Completions per prompt. They give the pass rate and the gaps of the row."
    )
    temperature: float = Field(
        1.0, gt=0, le=10, description="Divisor of the logits, for sampling and for all log-probabilities."
    )


class AuditSettings(StrictSettings):
    """An audit, without its model and data."""

    algorithm: CalibRL = Field(
        default_factory=CalibRL,
        description="Settings of CalibRL. expert_gap, expert_tail and mask_truncated decide the gaps; guidance_coef, "
        "negative_slope and rareness_weighting the effect of guidance. The others have no effect.",
    )
    rewards: tuple[Reward, ...] = Field(DEFAULT_REWARDS, min_length=1, max_length=16)
    prompts: PromptFormat = Field(default_factory=PromptFormat)
    rollout: AuditRollout = Field(default_factory=AuditRollout)
    max_nll: float = Field(
        2.0,
        gt=0,
        le=100,
        description="Maximum negative log-likelihood of an expert in nats per token. An expert above it is far from "
        "the policy: the verdict is rewrite. 2: the geometric mean of its tokens' probabilities is 13.5 %.",
    )
    rewrite: bool = Field(
        False,
        description="Let the policy restate each expert with the verdict rewrite, group_size times. The most likely "
        "restatement that all rewards accept replaces the expert, if it has a higher likelihood per token.",
    )
    precision: ForwardPrecision = "auto"
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of sampling.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        usable_rewards(self.rewards)
        self.rollout.check_served("rollout.temperature", self.rollout.temperature)
        return self


class AuditConfig(AuditSettings):
    """The complete configuration of `audit`."""

    model: ModelSource
    data: DataSource
    sandbox: SandboxPolicy = NO_PERMISSIONS

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        check_weight("data", self.data.weight)
        check_model("model", self.model, self.precision, self.rollout)
        return self
