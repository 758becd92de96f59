"""CISPO (MiniMax-M1, arXiv 2506.13585): clip the weight of a token, never its gradient.

    policy_t = -sg(clip(rho_t, 1 - clip_low, 1 + clip_high)) * A * logprob_t,   rho_t = exp(logprob_t - old_logprob_t)

with sg for no gradient. GRPO's clip removes a token from the update as soon as its ratio leaves the range; here it
stays, with a limited weight. The paper has no lower limit, and does not publish its upper one; the default weight of at
most 5 is that of ScaleRL (arXiv 2510.13786).
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from calibrl_core.algorithms.base import PolicyGradientSettings
from calibrl_core.algorithms.clipping import probability_ratios
from calibrl_core.algorithms.loss_batch import LossBatch, TokenLosses


class CISPO(PolicyGradientSettings):
    """CISPO. `dual_clip` is not used."""

    model_config = ConfigDict(title="CISPO")

    type: Literal["cispo"] = "cispo"
    clip_low: float = Field(1.0, ge=0, le=1, description="A token's weight is at least 1 - clip_low. 1: no limit.")
    clip_high: float = Field(4.0, ge=0, description="A token's weight is at most 1 + clip_high.")
    normalise_by_std: bool = Field(
        True, description="Divide advantages by the group's unbiased standard deviation + 1e-6."
    )

    def token_losses(self, batch: LossBatch) -> TokenLosses:
        """Return policy losses per token, `[B, T]`. The clip masks name the tokens whose weight is limited."""
        ratio = probability_ratios(batch.logprobs.detach() - batch.old_logprobs)
        weight = ratio.clamp(1 - self.clip_low, 1 + self.clip_high)
        return TokenLosses(
            policy=-weight * batch.advantages[:, None] * batch.logprobs,
            guidance=None,
            clipped_low=ratio < 1 - self.clip_low,
            clipped_high=ratio > 1 + self.clip_high,
            clipped_dual=batch.completion_mask & False,
        )
