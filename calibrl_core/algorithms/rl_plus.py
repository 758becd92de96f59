"""RL-PLUS (arXiv 2508.00222): expert tokens by multiple importance sampling and an advantage for exploration.

Rollout rows have GRPO's clipped loss. On an expert's row, with p_t = exp(logprob_t) and sg for no gradient,

    policy_t = -A * (1 - sg(p_t))^0.5 * 2 p_t / (p_old_t + 0.5 * (p_old_t + 1)),   p_old_t = exp(old_logprob_t)

The denominator is the mixture of the policy before the update and of the expert's unknown policy, which is taken to lie
halfway between that policy and certainty. (1 - p)^0.5 makes much of right tokens that the policy finds unlikely. No
clip. As in the published code of arXiv 2602.20197, A is the expert's reward minus the mean of the group's rollouts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import ConfigDict

from calibrl_core.algorithms.loss_batch import LossBatch
from calibrl_core.algorithms.luffy import LearnsFromExperts

if TYPE_CHECKING:
    from torch import Tensor


class RLPlus(LearnsFromExperts):
    """RL-PLUS: multiple importance sampling on expert rows."""

    model_config = ConfigDict(title="RL-PLUS")

    type: Literal["rl_plus"] = "rl_plus"

    def expert_losses(self, batch: LossBatch) -> Tensor:
        """Return `-A (1 - sg(p))^0.5 * 2p / (p_old + 0.5 (p_old + 1))`, `[B, T]`."""
        probability, old = batch.logprobs.exp(), batch.old_logprobs.exp()
        ratio = 2 * probability / (old + 0.5 * (old + 1))
        # Rounding may put a sure token's probability above 1, and the root of a negative number is NaN.
        exploration = (1 - probability.detach()).clamp(min=0).sqrt()
        return -batch.advantages[:, None] * exploration * ratio
