"""DAPO (arXiv 2503.14476): GRPO with four changes.

- Clip-higher (section 3.1): 1 - clip_low .. 1 + clip_high is not symmetric, so that unlikely tokens may rise.
- Dynamic sampling (3.2, equation 11): groups that are all right or all wrong are sampled anew with other prompts. The
  key is correctness, never the shaped reward: a format term or a length penalty would keep groups alive that have
  nothing to teach about the answer. The paper samples on until the batch is full; here the tries are capped.
- Token-level loss (3.3): aggregation token-mean, the default of every algorithm here.
- Soft overlong penalty (3.4, equation 13): see `overlong_penalty`.

The loss of a token is GRPO's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from calibrl_core.algorithms.base import LossBatch, PolicyGradientSettings, TokenLosses
from calibrl_core.algorithms.grpo import clipped_policy_loss

if TYPE_CHECKING:
    from torch import Tensor


class DAPO(PolicyGradientSettings):
    """DAPO's settings; the defaults are its paper's, and its published script's ten batches at most."""

    type: Literal["dapo"] = "dapo"
    clip_high: float = Field(0.28, ge=0, description="The gradient stops once the ratio rises above 1 + clip_high.")
    normalise_by_std: bool = Field(
        True, description="Divide advantages by the group's unbiased standard deviation + 1e-6."
    )
    dynamic_sampling: bool = Field(
        True, description="Replace groups that are all right or all wrong with groups of other prompts."
    )
    max_resamples: int = Field(
        9,
        ge=1,
        le=100,
        description="Maximum sampling rounds of other prompts per step. After them the step learns from the groups "
        "that it has.",
    )
    overlong_buffer: int | None = Field(
        None,
        ge=1,
        description="Number of tokens before rollout.max_completion_tokens over which the reward falls by up to 1. "
        "None: no penalty. The paper uses 4096 of 20480.",
    )

    def token_losses(self, batch: LossBatch) -> TokenLosses:
        """Per-token policy losses, `[B, T]`; no guidance."""
        return clipped_policy_loss(self, batch)


def overlong_penalty(lengths: Tensor, max_tokens: int, buffer: int) -> Tensor:
    """What a completion's length adds to its reward, `[B]` float64, from 0 down to -1 (equation 13).

    lengths `[B]` in tokens. 0 up to max_tokens - buffer, then linear to -1 at max_tokens. It belongs to the reward
    only: whether a completion passed is no question of its length.
    """
    return -(lengths.double() - (max_tokens - buffer)).div(buffer).clamp(0, 1)
