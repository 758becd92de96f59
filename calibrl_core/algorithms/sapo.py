"""SAPO (arXiv 2511.20347): a smooth gate in place of the clip.

    policy_t = -A * (4 / tau) * sigmoid(tau * (rho_t - 1)),   rho_t = exp(logprob_t - old_logprob_t)

with tau = temperature_positive where A > 0, else temperature_negative. Its gradient with respect to the log-probability
is -A * rho_t * 4 p (1 - p) with p the sigmoid: -A on-policy, and it fades as the ratio leaves 1. Tokens of rollouts
with A < 0 fade faster, because their gradient raises all other tokens of the vocabulary.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from calibrl_core.algorithms.base import Aggregation, PolicyGradientSettings
from calibrl_core.algorithms.clipping import probability_ratios
from calibrl_core.algorithms.loss_batch import LossBatch, TokenLosses


class SAPO(PolicyGradientSettings):
    """SAPO; temperatures of the paper. `clip_low`, `clip_high` and `dual_clip` are not used."""

    model_config = ConfigDict(title="SAPO")

    type: Literal["sapo"] = "sapo"
    temperature_positive: float = Field(1.0, gt=0, le=100, description="Steepness of the gate where A > 0.")
    temperature_negative: float = Field(1.05, gt=0, le=100, description="Steepness of the gate where A <= 0.")
    normalise_by_std: bool = Field(
        True, description="Divide advantages by the group's unbiased standard deviation + 1e-6."
    )
    aggregation: Aggregation = Field("seq-mean-token-mean", description="Reduction of token losses to one number.")

    def token_losses(self, batch: LossBatch) -> TokenLosses:
        """Return policy losses per token, `[B, T]`; no token is clipped."""
        advantage = batch.advantages[:, None]  # [B, 1]
        positive = advantage.new_full((), self.temperature_positive)
        temperature = positive.where(advantage > 0, self.temperature_negative)  # [B, 1]
        ratio = probability_ratios(batch.logprobs - batch.old_logprobs)
        gate = 4 / temperature * (temperature * (ratio - 1)).sigmoid()
        never = batch.completion_mask & False
        return TokenLosses(-advantage * gate, None, never, never, never)
