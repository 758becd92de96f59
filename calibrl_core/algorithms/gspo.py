"""GSPO (arXiv 2507.18071): the importance ratio of a sequence, not of a token.

    s_i = exp(mean over the tokens of logprob_t - old_logprob_t)                        (equation 7)

A rollout is clipped whole. The loss is written in the paper's token form (GSPO-token, equation 14), where every token
has the value s_i and the gradient of its own log-probability:

    s_{i,t} = sg(s_i) * exp(logprob_t - sg(logprob_t)),   policy_t = max(-A * s_{i,t}, -A * clip(s_{i,t}, ...))

With one advantage a rollout and aggregation seq-mean-token-mean this is equation 5, value and gradient. The dual clip
of the other algorithms stays; at these clip ranges a ratio of 3 does not happen.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from calibrl_core.algorithms.base import Aggregation, PolicyGradientSettings
from calibrl_core.algorithms.clipping import clipped_surrogate, probability_ratios
from calibrl_core.algorithms.loss_batch import LossBatch, TokenLosses


class GSPO(PolicyGradientSettings):
    """GSPO; clip range 3e-4 and 4e-4 as in the paper (section 5.1), where sequence ratios stay near 1."""

    clips_sequences: ClassVar[bool] = True

    type: Literal["gspo"] = "gspo"
    clip_low: float = Field(
        3e-4, ge=0, lt=1, description="The gradient stops once the sequence ratio falls below 1 - clip_low."
    )
    clip_high: float = Field(
        4e-4, ge=0, description="The gradient stops once the sequence ratio rises above 1 + clip_high."
    )
    normalise_by_std: bool = Field(
        True, description="Divide advantages by the group's unbiased standard deviation + 1e-6."
    )
    aggregation: Aggregation = Field("seq-mean-token-mean", description="Reduction of token losses to one number.")

    def token_losses(self, batch: LossBatch) -> TokenLosses:
        """Return policy losses per token, `[B, T]`; all tokens of a rollout are clipped, or none."""
        mask = batch.completion_mask
        log_ratio = (batch.logprobs.detach() - batch.old_logprobs).masked_fill(~mask, 0.0)
        sequence = log_ratio.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True).clamp(min=1)  # [B, 1]
        own_gradient = batch.logprobs - batch.logprobs.detach()  # 0, with the token's gradient
        return clipped_surrogate(self, probability_ratios(sequence + own_gradient), batch.advantages)
