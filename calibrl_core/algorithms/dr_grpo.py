"""Dr. GRPO (arXiv 2503.20783, section 3.2): GRPO without its two biases.

The loss of a token is GRPO's. Advantages are not divided by the group's std, which favours questions that are nearly
always or nearly never solved; and the loss is summed over tokens and divided by a constant,

    loss = sum over tokens / (sequences * max_completion_tokens),

because a division by each completion's own length favours long wrong ones.
"""

from typing import Literal

from pydantic import ConfigDict, Field

from calibrl_core.algorithms.base import Aggregation, PolicyGradientSettings


class DrGRPO(PolicyGradientSettings):
    """Dr. GRPO: GRPO's loss per token with other advantages and another aggregation."""

    model_config = ConfigDict(title="Dr. GRPO")

    type: Literal["dr_grpo"] = "dr_grpo"
    aggregation: Aggregation = Field("seq-mean-token-sum-norm", description="Reduction of token losses to one number.")
    normalise_by_std: Literal[False] = Field(
        False, description="Always false: the division is one of the two biases that Dr. GRPO removes."
    )
