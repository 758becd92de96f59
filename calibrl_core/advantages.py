"""Group-relative advantages (arXiv 2402.03300; by default not divided by the standard deviation: arXiv 2602.20197)."""

from torch import Tensor


def group_advantages(rewards: Tensor, *, normalise_by_std: bool) -> Tensor:
    """A = reward - mean of its group, optionally / (unbiased std + 1e-6). rewards `[P, G]` float, result the same.

    A group of equal rewards gets exactly 0, whatever rounding the mean suffered: there is nothing to learn from it.
    """
    advantages = rewards - rewards.mean(-1, keepdim=True)
    if normalise_by_std:
        advantages = advantages / (rewards.std(-1, keepdim=True, unbiased=True) + 1e-6)
    equal = rewards.amax(-1, keepdim=True) == rewards.amin(-1, keepdim=True)
    return advantages.masked_fill(equal, 0.0)
