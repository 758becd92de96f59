"""Importance weights, for rollouts whose sampler differs from the trainer.

Another engine, or another order of sums in bfloat16, gives other logits; top_k, top_p, min_p and the repetition penalty
give another distribution. A policy gradient from such samples is biased. With p the trainer's policy before the step's
first update, q the sampler's, and r = p(token) / q(token), the policy loss of each token is multiplied by a weight w:

    token_truncate       min(r, cap)
    token_mask           r, or 0 if r > cap
    sequence_truncate    min(s, cap),           s = product of r over the completion
    sequence_mask        s, or 0 if s > cap
    geometric_mask       1, or 0 unless 1 / cap <= s^(1 / tokens) <= cap

Truncation (E. Ionides, Truncated Importance Sampling, 2008) limits the weight of tokens that the sampler was unlikely
to draw; a mask removes them. TRL has the first four, verl also the last (rejection by the mean log-ratio). The clipped
ratio compares with p, so it does not use q.

With `rollout.max_staleness` 1 the sampler has the weights from before the last update, and w also corrects for that
update. The loss w x clipped loss of current / p is the decoupled objective: q is its behaviour policy, p its proximal
policy (arXiv 2110.00641, section 3).

If filters keep tokens of total probability Z, r is Z for each of them, without a penalty. No weight restores the tokens
that they remove: their share 1 - Z of the gradient is missing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calibrl_core.algorithms.clipping import probability_ratios
from calibrl_core.settings.sampling import ImportanceCorrection


@dataclass(frozen=True)
class ImportanceWeights:
    """Weights of the policy loss, and the tokens on which the cap took effect."""

    values: Tensor  # [B, T] float
    limited: Tensor  # [B, T] bool


@torch.no_grad()
def importance_weights(
    logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor, correction: ImportanceCorrection, cap: float
) -> ImportanceWeights:
    """Return the weights of a micro-batch from log p and log q, each `[B, T]` nats.

    mask: `[B, T]` bool, True = the token counts; `cap`: at least 1.
    """
    log_ratios = (logprobs - sampler_logprobs).masked_fill(~mask, 0.0)  # [B, T]
    if not correction.startswith("token"):
        log_ratios = log_ratios.sum(-1, keepdim=True).expand_as(log_ratios)
    if correction == "geometric_mask":
        log_ratios = log_ratios / mask.sum(-1, keepdim=True).clamp(min=1)
    ratios = probability_ratios(log_ratios)
    limited = ratios > cap
    if correction == "geometric_mask":
        limited |= ratios < 1 / cap
        return ImportanceWeights((~limited).to(ratios.dtype), limited)
    if correction in ("token_mask", "sequence_mask"):
        return ImportanceWeights(ratios.masked_fill(limited, 0.0), limited)
    if correction in ("token_truncate", "sequence_truncate"):
        return ImportanceWeights(ratios.clamp(max=cap), limited)
    return ImportanceWeights(torch.ones_like(ratios), torch.zeros_like(limited))
