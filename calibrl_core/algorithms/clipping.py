"""Clipped policy-gradient loss of GRPO (arXiv 2402.03300, equation 3) with the dual clip of arXiv 1912.09729.

    policy_t = max(-A * rho_t, -A * clip(rho_t, 1 - clip_low, 1 + clip_high)),  rho_t = exp(logprob_t - old_logprob_t)

and, for A < 0, min(policy_t, -dual_clip * A). The log-ratio is limited to -20 .. 20.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from calibrl_core.algorithms.loss_batch import LossBatch, TokenLosses

if TYPE_CHECKING:
    from torch import Tensor

    from calibrl_core.algorithms.base import PolicyGradientSettings


MAX_LOG_RATIO = 20.0  # nats, as verl; without a limit exp overflows above 88, and the gradient of a clipped inf is NaN


def limited_log_ratios(log_ratios: Tensor) -> Tensor:
    """Return log-ratios (any shape, nats) limited to -20 .. 20; beyond the limits the gradient is 0."""
    return log_ratios.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def probability_ratios(log_ratios: Tensor) -> Tensor:
    """Return exp of `limited_log_ratios`."""
    return limited_log_ratios(log_ratios).exp()


def clipped_surrogate(settings: PolicyGradientSettings, ratio: Tensor, advantages: Tensor) -> TokenLosses:
    """Return the clipped loss of given ratios. ratio `[B, T]`, advantages `[B]`."""
    advantage = advantages[:, None]  # [B, 1]
    unclipped = -advantage * ratio
    clipped = -advantage * ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    worst = unclipped.maximum(clipped)
    negative = advantage < 0
    took_over = clipped > unclipped
    dual = took_over & False
    policy = worst
    if settings.dual_clip is not None:
        ceiling = -settings.dual_clip * advantage
        dual = (worst > ceiling) & negative
        policy = worst.minimum(ceiling).where(negative, worst)
    return TokenLosses(
        policy=policy,
        guidance=None,
        clipped_low=took_over & negative,
        clipped_high=took_over & ~negative,
        clipped_dual=dual,
    )


def clipped_policy_loss(settings: PolicyGradientSettings, batch: LossBatch) -> TokenLosses:
    """Return the clipped loss with each token's own ratio."""
    return clipped_surrogate(settings, probability_ratios(batch.logprobs - batch.old_logprobs), batch.advantages)
