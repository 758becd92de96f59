"""GRPO (arXiv 2402.03300) with the dual clip of arXiv 1912.09729.

    policy_t = max(-A * rho_t, -A * clip(rho_t, 1 - clip_low, 1 + clip_high)),  rho_t = exp(logprob_t - old_logprob_t)

and, where A < 0, min(policy_t, -dual_clip * A).
"""

from __future__ import annotations

from typing import Literal

from calibrl_core.algorithms.base import LossBatch, PolicyGradientSettings, TokenLosses


def clipped_policy_loss(settings: PolicyGradientSettings, batch: LossBatch) -> TokenLosses:
    """The clipped surrogate, `[B, T]`, with the tokens on which each clip took over."""
    advantage = batch.advantages[:, None]  # [B, 1]
    ratio = (batch.logprobs - batch.old_logprobs).exp()
    unclipped = -advantage * ratio
    clipped = -advantage * ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    worst = unclipped.maximum(clipped)
    ceiling = -settings.dual_clip * advantage
    negative = advantage < 0
    took_over = clipped > unclipped
    return TokenLosses(
        policy=worst.minimum(ceiling).where(negative, worst),
        guidance=None,
        clipped_low=took_over & negative,
        clipped_high=took_over & ~negative,
        clipped_dual=(worst > ceiling) & negative,
    )


class GRPO(PolicyGradientSettings):
    """GRPO's settings: the shared ones, nothing more."""

    type: Literal["grpo"] = "grpo"

    def token_losses(self, batch: LossBatch) -> TokenLosses:
        """Per-token policy losses, `[B, T]`; no guidance."""
        return clipped_policy_loss(self, batch)
