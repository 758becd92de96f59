"""Estimators of KL(policy || reference) from sampled tokens (J. Schulman, Approximating KL Divergence, 2020).

Each takes log-probabilities of the same tokens, `[B, T]` nats, and returns a loss a token, `[B, T]`, whose gradient is
in `logprobs` only. The updater weighs their sum by kl_coef.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from calibrl_core.algorithms.clipping import limited_log_ratios, probability_ratios

if TYPE_CHECKING:
    from torch import Tensor

MAX_K3 = 10.0  # nats per token, as verl: a single token must not decide the direction of a clipped gradient


def kl_k1(logprobs: Tensor, ref_logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """rho * (logprob - ref_logprob), rho = exp(logprob - old_logprob) with its gradient: unbiased, value and gradient.

    Without rho the value would be right and the gradient useless: the expectation of the gradient of logprob is 0, so
    `logprob - ref_logprob` as a loss pulls nowhere and only adds noise.
    """
    return probability_ratios(logprobs - old_logprobs) * (logprobs - ref_logprobs)


def kl_k3(logprobs: Tensor, ref_logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """exp(d) - d - 1 with d = ref_logprob - logprob, as GRPO (arXiv 2402.03300, equation 4). `old_logprobs`: not used.

    On tokens of the current policy its value is unbiased, never negative and of low variance; its gradient is that of
    KL(reference || policy), the other direction, which has the same minimum. d is limited to -20 .. 20 and the result
    to 10, where the gradient is 0.
    """
    d = limited_log_ratios(ref_logprobs - logprobs)
    return (d.exp() - d - 1).clamp(max=MAX_K3)
