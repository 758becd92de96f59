"""GRPO (arXiv 2402.03300, equation 3) with the dual clip of arXiv 1912.09729.

    policy_t = max(-A * rho_t, -A * clip(rho_t, 1 - clip_low, 1 + clip_high)),  rho_t = exp(logprob_t - old_logprob_t)

and, where A < 0, min(policy_t, -dual_clip * A).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from calibrl_core.algorithms.base import LossBatch, PolicyGradientSettings, TokenLosses

if TYPE_CHECKING:
    from torch import Tensor


def clipped_surrogate(settings: PolicyGradientSettings, ratio: Tensor, advantages: Tensor) -> TokenLosses:
    """The clipped loss, `[B, T]`, with the tokens on which each clip took over. ratio `[B, T]`, advantages `[B]`."""
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
    """GRPO's loss, `[B, T]`: the clipped loss of each token's own ratio."""
    return clipped_surrogate(settings, (batch.logprobs - batch.old_logprobs).exp(), batch.advantages)


class GRPO(PolicyGradientSettings):
    """GRPO's settings: the shared ones, nothing more. The paper also divides by std: `normalise_by_std`."""

    type: Literal["grpo"] = "grpo"

    def token_losses(self, batch: LossBatch) -> TokenLosses:
        """Per-token policy losses, `[B, T]`; no guidance."""
        return clipped_policy_loss(self, batch)
