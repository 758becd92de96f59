"""Group-relative advantages (arXiv 2402.03300; by default not divided by the standard deviation: arXiv 2602.20197)."""

from torch import Tensor


def group_advantages(rewards: Tensor, *, normalise_by_std: bool) -> Tensor:
    """Return A = reward - mean of its group, optionally / (unbiased std + 1e-6). rewards and result `[P, G]` float.

    A group of equal rewards gets exactly 0, despite the rounding of the mean: there is nothing to learn from it.
    """
    advantages = rewards - rewards.mean(-1, keepdim=True)
    if normalise_by_std:
        advantages = advantages / _spread(rewards)
    return advantages.masked_fill(_equal(rewards), 0.0)


def expert_advantages(expert_rewards: Tensor, rewards: Tensor, *, normalise_by_std: bool) -> Tensor:
    """Return each expert's reward minus the mean of its group's rollouts, optionally divided by their std.

    expert_rewards `[P]`, rewards `[P, G]` (the rollouts'), result `[P]`, all float. If the rollouts'
    rewards are all equal, A is not divided: the published code divides by 1e-6 there, so that one expert dominates the
    batch.
    """
    advantages = expert_rewards - rewards.mean(-1)
    if normalise_by_std:
        advantages = advantages / _spread(rewards).masked_fill(_equal(rewards), 1.0).squeeze(-1)
    return advantages


def _spread(rewards: Tensor) -> Tensor:
    return rewards.std(-1, keepdim=True, unbiased=True) + 1e-6


def _equal(rewards: Tensor) -> Tensor:
    return rewards.amax(-1, keepdim=True) == rewards.amin(-1, keepdim=True)
