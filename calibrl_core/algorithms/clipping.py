"""Clipped policy-gradient loss of GRPO (arXiv 2402.03300, equation 3) with the dual clip of arXiv 1912.09729.

    policy_t = max(-A * rho_t, -A * clip(rho_t, 1 - clip_low, 1 + clip_high)),  rho_t = exp(logprob_t - old_logprob_t)

and, for A < 0, min(policy_t, -dual_clip * A).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from calibrl_core.algorithms.loss_batch import LossBatch, TokenLosses

if TYPE_CHECKING:
    from torch import Tensor

    from calibrl_core.algorithms.base import PolicyGradientSettings


def clipped_surrogate(settings: PolicyGradientSettings, ratio: Tensor, advantages: Tensor) -> TokenLosses:
    """Return the clipped loss of given ratios. ratio `[B, T]`, advantages `[B]`."""
    advantage = advantages[:, None]  # [B, 1]
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


def clipped_policy_loss(settings: PolicyGradientSettings, batch: LossBatch) -> TokenLosses:
    """Return the clipped loss with each token's own ratio."""
    return clipped_surrogate(settings, (batch.logprobs - batch.old_logprobs).exp(), batch.advantages)
