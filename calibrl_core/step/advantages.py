"""Group-relative advantages (arXiv 2402.03300; by default not divided by the standard deviation: arXiv 2602.20197)."""

from torch import Tensor


def group_advantages(rewards: Tensor, *, normalise_by_std: bool) -> Tensor:
    """A = reward - mean of its group, optionally / (unbiased std + 1e-6). rewards `[P, G]` float, result the same.

    A group of equal rewards gets exactly 0, whatever rounding the mean suffered: there is nothing to learn from it.
    """
    advantages = rewards - rewards.mean(-1, keepdim=True)
    if normalise_by_std:
        advantages = advantages / _spread(rewards)
    return advantages.masked_fill(_equal(rewards), 0.0)


def expert_advantages(own: Tensor, rewards: Tensor, *, normalise_by_std: bool) -> Tensor:
    """An expert's reward minus the mean of its group's rollouts, optionally divided like theirs. own `[P]`, rewards
    `[P, G]` float, result `[P]`.

    Where the rollouts' rewards are all equal there is no spread to divide by, and A stays as it is: the published code
    divides by 1e-6 there, and so lets one expert drown the batch.
    """
    advantages = own - rewards.mean(-1)
    if normalise_by_std:
        advantages = advantages / _spread(rewards).masked_fill(_equal(rewards), 1.0).squeeze(-1)
    return advantages


def _spread(rewards: Tensor) -> Tensor:
    return rewards.std(-1, keepdim=True, unbiased=True) + 1e-6


def _equal(rewards: Tensor) -> Tensor:
    return rewards.amax(-1, keepdim=True) == rewards.amin(-1, keepdim=True)
