"""What a step's diagnostics are computed from."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from calibrl_core.algorithms.loss_batch import to_width
from calibrl_core.data.schema import Example
from calibrl_core.rollout.base import Rollouts
from calibrl_core.verifiers.scorer import Score


@dataclass(frozen=True)
class Experts:
    """The experts of a step's prompts, as the policy sees them before the first update. `[P, E]`, E: the longest; a
    prompt without an expert has an empty mask, and E is 0 where none has one."""

    tokens: Tensor  # [P, E] long
    mask: Tensor  # [P, E] bool, True = the expert has a token at this position
    logprobs: Tensor  # [P, E] float, nats, the policy's own; 0 where masked
    entropies: Tensor  # [P, E] float, nats, of the policy's distribution at that position; 0 where masked
    joins: Tensor | None = None  # [P] bool, the expert's row is in the update; None: no expert is
    advantages: Tensor | None = None  # [P] float64, its reward minus the rollouts' mean; 0 where it does not join

    @property
    def nll(self) -> float | None:
        """Mean negative log-likelihood, nats a token; None where there is no expert."""
        return -self.logprobs.double().sum().item() / int(self.mask.sum()) if self.mask.any() else None


@dataclass(frozen=True)
class StepBatch:
    """A step's rollouts with all that is known of them before the first update. `B = P * G` rows, T tokens.

    After the update there are `ratios` too: p(token) under the policy that the token's own mini-batch met, over that
    under the policy that sampled it: what the clip judged. A rollout is in one mini-batch of its step; one that was
    left out of the forward pass (see `Updater`) has none.
    """

    examples: Sequence[Example]  # P
    rollouts: Rollouts
    scores: list[Score]  # B
    rewards: Tensor  # [P, G] float64
    passed: Tensor  # [P, G] bool
    advantages: Tensor  # [P, G] float64
    experts: Experts
    # Where the engine's distribution is not the trainer's; `rollouts.logprobs` are then the trainer's.
    sampler_logprobs: Tensor | None = None  # [B, T] float, nats; 0 where masked
    importance: Tensor | None = None  # [B, T] float, weights of the policy loss: see `calibrl_core.step.importance`
    ratios: Tensor | None = None  # [B, T] float; NaN where there is none

    @property
    def gap_mask(self) -> Tensor:
        """`[B, T]` bool: rollout tokens that have an expert token at their position."""
        return self.rollouts.mask & self._beside(self.experts.mask)

    @property
    def gaps(self) -> Tensor:
        """`[B, T]` nats: log pi_old(rollout token) - log pi_old(expert token); meaningful under `gap_mask`."""
        return self.rollouts.logprobs - self._beside(self.experts.logprobs)

    def _beside(self, rows: Tensor) -> Tensor:
        """`[P, E]` to `[B, T]`: each expert's row beside each rollout of its prompt."""
        return to_width(rows, self.rollouts.mask.shape[1]).repeat_interleave(self.rollouts.group_size, dim=0)


def mean_or_nothing(name: str, values: Tensor) -> dict[str, float]:
    """`{name: mean}`, or nothing where there are no values: an absent point, not a made-up zero."""
    return {name: values.double().mean().item()} if values.numel() else {}
