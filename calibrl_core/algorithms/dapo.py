"""DAPO (arXiv 2503.14476): GRPO with four changes.

- Clip-higher (section 3.1): 1 - clip_low .. 1 + clip_high is not symmetric, so that unlikely tokens may rise.
- Dynamic sampling (3.2, equation 11): groups that are all right or all wrong are replaced by groups of other prompts.
  The criterion is correctness, not the shaped reward: a format term or a length penalty would keep groups that teach
  nothing about the answer. The paper samples until the batch is full; here the number of tries is limited. A try
  samples as many prompts as are probably needed, so a step can learn from some groups more than prompts_per_step.
- Token-level loss (3.3): aggregation token-mean, the default of every algorithm here.
- Soft overlong penalty (3.4, equation 13): see `overlong_penalty`.

The loss of a token is GRPO's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from calibrl_core.algorithms.base import PolicyGradientSettings

if TYPE_CHECKING:
    from torch import Tensor

    from calibrl_core.config import TrainSettings
    from calibrl_core.rollout.base import Rollouts


class DAPO(PolicyGradientSettings):
    """DAPO; the defaults are its paper's, and at most ten batches as in its published script."""

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

    def check(self, config: TrainSettings) -> None:
        """Check that the penalty's buffer is no longer than a completion can be.

        Raises:
            ValueError: it is longer.
        """
        super().check(config)
        limit = config.rollout.max_completion_tokens
        if self.overlong_buffer is not None and self.overlong_buffer > limit:
            raise ValueError(
                f"algorithm.overlong_buffer ({self.overlong_buffer}) must not exceed "
                f"rollout.max_completion_tokens ({limit})"
            )

    def max_abs_advantage(self, group_size: int, reward_span: float) -> float:
        """Widen the rewards by the penalty's 1."""
        penalty = 1.0 if self.overlong_buffer is not None else 0.0
        return super().max_abs_advantage(group_size, reward_span + penalty)

    def extra_reward(self, rollouts: Rollouts, max_tokens: int) -> Tensor | None:
        """Return `overlong_penalty` of the rollouts, `[B]`, if there is an `overlong_buffer`."""
        if self.overlong_buffer is None:
            return None
        return overlong_penalty(rollouts.mask.sum(-1), max_tokens, self.overlong_buffer)

    def resample_limit(self) -> int:
        """Return `max_resamples`, or 0 without dynamic sampling."""
        return self.max_resamples if self.dynamic_sampling else 0

    def keeps_groups(self, passed: Tensor, rewards: Tensor) -> Tensor:
        """Keep the groups that are neither all right nor all wrong, `[P]` bool."""
        return passed.any(-1) & ~passed.all(-1)


def overlong_penalty(lengths: Tensor, max_tokens: int, buffer: int) -> Tensor:
    """Return the reward term for a completion's length, `[B]` float64, from 0 down to -1 (equation 13).

    lengths `[B]` in tokens. 0 up to max_tokens - buffer, then linear to -1 at max_tokens. The term belongs to the
    reward only: a completion's length does not decide if it passed.
    """
    return -(lengths.double() - (max_tokens - buffer)).div(buffer).clamp(0, 1)
