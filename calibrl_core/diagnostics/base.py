"""What a step's diagnostics are computed from."""

from dataclasses import dataclass

from torch import Tensor

from calibrl_core.algorithms.base import to_width
from calibrl_core.rewards import Score
from calibrl_core.rollout.base import Rollouts


@dataclass(frozen=True)
class StepBatch:
    """A step's rollouts with all that is known of them before the first update. `B = P * G` rows, T tokens,
    E tokens of the longest expert."""

    rollouts: Rollouts
    scores: list[Score]  # B
    rewards: Tensor  # [P, G] float64
    passed: Tensor  # [P, G] bool
    advantages: Tensor  # [P, G] float64
    expert_logprobs: Tensor  # [B, E] float, the policy's own, of the rollout's expert; 0 where masked
    expert_mask: Tensor  # [B, E] bool, True = the expert has a token at this position
    expert_nll: float | None  # nats a token, over the batch's experts; None where it has none

    @property
    def gap_mask(self) -> Tensor:
        """`[B, T]` bool: rollout tokens that have an expert token at their position."""
        return self.rollouts.mask & to_width(self.expert_mask, self.rollouts.mask.shape[1])

    @property
    def gaps(self) -> Tensor:
        """`[B, T]` nats: log pi_old(rollout token) - log pi_old(expert token); meaningful under `gap_mask`."""
        return self.rollouts.logprobs - to_width(self.expert_logprobs, self.rollouts.mask.shape[1])


def mean_or_nothing(name: str, values: Tensor) -> dict[str, float]:
    """`{name: mean}`, or nothing where there are no values: an absent point, not a made-up zero."""
    return {name: values.double().mean().item()} if values.numel() else {}
