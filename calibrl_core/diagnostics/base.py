"""Input of a step's diagnostics."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from calibrl_core.algorithms.loss_batch import to_width
from calibrl_core.data.schema import Example
from calibrl_core.rollout.base import Rollouts
from calibrl_core.verifiers.base import AnswerForm
from calibrl_core.verifiers.scorer import Score


@dataclass(frozen=True)
class Experts:
    """The experts of a step's prompts, scored by the policy before the first update.

    Shape `[P, E]`, E: the longest expert. A prompt without an expert has an empty mask; E is 0 if no prompt has one.
    """

    tokens: Tensor  # [P, E] long
    mask: Tensor  # [P, E] bool, True = the expert has a token at this position
    logprobs: Tensor  # [P, E] float, nats, the policy's own; 0 where masked
    entropies: Tensor  # [P, E] float, nats, of the policy's distribution at that position; 0 where masked
    joins: Tensor | None = None  # [P] bool, the expert's row is in the update; None: no expert's row is
    advantages: Tensor | None = None  # [P] float64, its reward minus the rollouts' mean; 0 where it does not join

    @property
    def nll(self) -> float | None:
        """Return the mean negative log-likelihood in nats per token, or None without an expert."""
        return -self.logprobs.double().sum().item() / int(self.mask.sum()) if self.mask.any() else None


@dataclass(frozen=True)
class ImageGains:
    """Log-probability of each token with the prompt's images minus that with changed ones (`data.changed_images`).

    Shape `[B, T]` float, nats; NaN where it was not measured, or where the change leaves the images as they are.
    """

    blank: Tensor
    shuffle: Tensor
    swap: Tensor


@dataclass(frozen=True)
class StepBatch:
    """The rollouts of a step, with all data computed before the first update. `B = P * G` rows, T tokens.

    After the update there are also `ratios`: p(token) under the policy that the token's mini-batch was evaluated with,
    divided by p(token) under the policy before the first update. The clip judges this ratio. A rollout is in one
    mini-batch of each pass over the step's rollouts; the last pass counts. A rollout that was left out of the forward
    pass (see `Updater`) has no ratio.
    """

    examples: Sequence[Example]  # P
    rollouts: Rollouts
    scores: list[Score]  # B
    rewards: Tensor  # [P, G] float64
    passed: Tensor  # [P, G] bool
    advantages: Tensor  # [P, G] float64
    experts: Experts
    ratios: Tensor | None = None  # [B, T] float; NaN for a token without a ratio
    image_gains: ImageGains | None = None  # None: not measured in this step
    form: AnswerForm = "answer"  # where the answers are in the texts

    @property
    def gap_mask(self) -> Tensor:
        """Return `[B, T]` bool: rollout tokens that have an expert token at their position."""
        return self.rollouts.mask & self._per_rollout(self.experts.mask)

    @property
    def gaps(self) -> Tensor:
        """Return `[B, T]` nats: log pi_old(rollout token) - log pi_old(expert token). Valid under `gap_mask` only."""
        return self.rollouts.logprobs - self._per_rollout(self.experts.logprobs)

    def _per_rollout(self, rows: Tensor) -> Tensor:
        """Expand `[P, E]` to `[B, T]`: the expert's row for each rollout of its prompt."""
        return to_width(rows, self.rollouts.mask.shape[1]).repeat_interleave(self.rollouts.group_size, dim=0)


def mean_if_any(name: str, values: Tensor) -> dict[str, float]:
    """Return `{name: mean}` of `values` (any shape), or nothing if there are no values: an absent point instead of a
    zero.
    """
    return {name: values.double().mean().item()} if values.numel() else {}
