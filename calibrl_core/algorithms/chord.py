"""CHORD (arXiv 2508.11408): reinforcement learning on rollouts and imitation of the experts in one loss.

    loss = (1 - mu) * mean over rollout tokens of GRPO's loss  +  mu * mean over expert tokens of -phi_t * logprob_t

The first mean and the second have their own denominators. phi_t = p_t * (1 - p_t), without a gradient, with p_t =
exp(logprob_t), is the paper's token weight (CHORD-phi): it leaves out tokens that the policy is sure of,
and tokens so unlikely that they would change its own patterns. mu follows a cosine from `mu` to `mu_end` over
`mu_decay_steps` (CHORD-mu). The paper draws the experts from a separate dataset; here they are those
of the step's prompts.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import ConfigDict, Field

from calibrl_core.algorithms.loss_batch import LossBatch, TokenLosses
from calibrl_core.algorithms.luffy import LearnsFromExperts

if TYPE_CHECKING:
    from torch import Tensor

    from calibrl_core.config import TrainSettings


class CHORD(LearnsFromExperts):
    """CHORD; by default CHORD-phi with the paper's mu of 0.1."""

    model_config = ConfigDict(title="CHORD")
    has_guidance: ClassVar[bool] = True
    averages_experts_apart: ClassVar[bool] = True

    type: Literal["chord"] = "chord"
    mu: float = Field(0.1, ge=0, le=1, description="Weight of the experts' loss at the first step; 1 - mu: GRPO's.")
    mu_end: float = Field(0.1, ge=0, le=1, description="Weight of the experts' loss from mu_decay_steps on.")
    mu_decay_steps: int = Field(0, ge=0, description="Steps over which the weight goes from mu to mu_end.")
    token_weighting: bool = Field(
        True, description="Weight an expert's token by p * (1 - p), p: its probability. False: every token by 1."
    )

    def check(self, config: TrainSettings) -> None:
        """Check that rollouts and experts can be averaged apart.

        Raises:
            ValueError: `micro_batch_mean` averages them together.
        """
        super().check(config)
        if self.micro_batch_mean:
            raise ValueError("algorithm.micro_batch_mean averages rollouts and experts together: set it to false")

    def guidance_weight(self, step: int) -> float:
        """Return mu of `step` (from 0)."""
        if step >= self.mu_decay_steps:
            return self.mu_end
        return self.mu_end + (self.mu - self.mu_end) * 0.5 * (1 + math.cos(math.pi * step / self.mu_decay_steps))

    def policy_weight(self, step: int) -> float:
        """Return 1 - mu of `step` (from 0)."""
        return 1 - self.guidance_weight(step)

    def needs_all_rows(self, step: int) -> bool:
        """True also while the experts count: their loss does not depend on A."""
        return super().needs_all_rows(step) or self.guidance_weight(step) > 0

    def token_losses(self, batch: LossBatch) -> TokenLosses:
        """Return GRPO's losses on rollouts and, as guidance, the experts' on expert rows, each `[B, T]`."""
        probability = batch.logprobs.detach().exp()
        weight = probability * (1 - probability) if self.token_weighting else 1.0
        imitation = (-weight * batch.logprobs).masked_fill(~batch.is_expert[:, None], 0.0)
        return replace(super().token_losses(batch), guidance=imitation)

    def expert_losses(self, batch: LossBatch) -> Tensor:
        """Return 0, `[B, T]`: the experts' loss is the guidance."""
        return batch.logprobs.new_zeros(batch.logprobs.shape)
