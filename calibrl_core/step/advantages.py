"""Advantages of a step's rollouts from their rewards r, and of experts.

    group            A = r - mean of the group                    GRPO, arXiv 2402.03300; arXiv 2602.20197
    leave_one_out    A = r - mean of the group's other rollouts   RLOO, arXiv 2402.14740
    batch            A = (r - mean of the step) / std             REINFORCE++, arXiv 2501.03262
    group_batch      A = (r - mean of the group) / std            REINFORCE++-baseline, the same paper

With `normalise_by_std` the first two are divided by the group's standard deviation. The std of the last two is that of
their numerators over all rollouts of the step. REINFORCE++ adds a KL term to the reward; here it is a term of the loss
(`kl_coef`).
"""

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from calibrl_core.algorithms.base import Advantages

EPSILON = 1e-6  # added to standard deviations
ROUNDING = 1e-9  # a reward so near the mean of the step is equal to it


def step_advantages(
    rewards: Tensor,
    kind: Advantages,
    *,
    normalise_by_std: bool,
    sum_over: Callable[[Sequence[float]], list[float]] = list,
) -> Tensor:
    """Return the advantages of this process's rollouts. rewards and result `[P, G]` float64.

    `sum_over` sums over the processes; with batch and group_batch all of them must call this.
    """
    if kind == "group":
        return group_advantages(rewards, normalise_by_std=normalise_by_std)
    if kind == "leave_one_out":  # r - (sum - r) / (G - 1) = (r - mean) * G / (G - 1)
        size = rewards.shape[-1]
        return group_advantages(rewards, normalise_by_std=normalise_by_std) * (size / (size - 1))
    count, total = sum_over([rewards.numel(), rewards.sum().item()])
    if kind == "batch":
        centred = rewards - total / count
        centred = centred.masked_fill(centred.abs() < ROUNDING, 0.0)
    else:
        centred = group_advantages(rewards, normalise_by_std=False)
    (squares,) = sum_over([centred.square().sum().item()])
    return centred / (math.sqrt(squares / max(1.0, count - 1)) + EPSILON)


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
    return rewards.std(-1, keepdim=True, unbiased=True) + EPSILON


def _equal(rewards: Tensor) -> Tensor:
    return rewards.amax(-1, keepdim=True) == rewards.amin(-1, keepdim=True)
