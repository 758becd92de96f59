"""Dr. GRPO (arXiv 2503.20783, section 3.2): GRPO without its two biases.

The loss of a token is GRPO's. Advantages are not divided by the group's std, which favours questions that are nearly
always or nearly never solved; and the loss is summed over tokens and divided by a constant,

    loss = sum over tokens / (sequences * max_completion_tokens),

because a division by each completion's own length favours long wrong ones.
"""

from typing import Literal

from pydantic import Field

from calibrl_core.algorithms.base import Aggregation, LossBatch, PolicyGradientSettings, TokenLosses
from calibrl_core.algorithms.grpo import clipped_policy_loss


class DrGRPO(PolicyGradientSettings):
    """Dr. GRPO's settings."""

    type: Literal["dr_grpo"] = "dr_grpo"
    aggregation: Aggregation = Field("seq-mean-token-sum-norm", description="Reduction of token losses to one number.")
    normalise_by_std: Literal[False] = Field(
        False, description="Always false: the division is one of the two biases that Dr. GRPO removes."
    )

    def token_losses(self, batch: LossBatch) -> TokenLosses:
        """GRPO's policy losses a token, `[B, T]`; what differs is advantages and aggregation. No guidance."""
        return clipped_policy_loss(self, batch)
