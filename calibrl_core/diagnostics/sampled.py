"""Family sampled/: with dynamic sampling, all groups that a step sampled, of which it learns from some.

The groups that are kept differ in correctness by choice: they always have an advantage, and are right about half the
time. So the health rules read these instead, wherever there are any.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from calibrl_core.rollout.base import Rollouts
from calibrl_core.verifiers.scorer import Score


class SampledGroups:
    """Sums over the groups that a step has sampled so far: their tokens need not be kept."""

    def __init__(self) -> None:
        self._rewards: list[Tensor] = []
        self._right = self._strict = self._truncated = self._tokens = 0
        self._entropy = 0.0

    def add(self, rewards: Tensor, rollouts: Rollouts, scores: Sequence[Score]) -> None:
        """Some more groups: rewards `[P, G]` as the advantages are made of; scores, one a rollout."""
        self._rewards.append(rewards)
        self._right += sum(score.passed for score in scores)
        self._strict += sum(score.strict for score in scores)
        self._truncated += int(rollouts.truncated.sum())
        self._tokens += int(rollouts.mask.sum())
        self._entropy += rollouts.entropies[rollouts.mask].sum(dtype=torch.float64).item()

    def metrics(self) -> dict[str, float]:
        """Each as its namesake without `sampled/`; and how many prompts were sampled."""
        rewards = torch.cat(self._rewards)  # [P, G]
        rollouts = rewards.numel()
        return {
            "exploration/sampled_prompts": float(len(rewards)),
            "sampled/reward/mean": rewards.mean().item(),
            "sampled/reward/std": rewards.std(unbiased=False).item(),
            "sampled/reward/answer_accuracy": self._right / rollouts,
            "sampled/reward/strict_accuracy": self._strict / rollouts,
            "sampled/exploration/entropy": self._entropy / self._tokens,
            "sampled/exploration/active_groups": (rewards != rewards[:, :1]).any(-1).double().mean().item(),
            "sampled/length/truncated_share": self._truncated / rollouts,
        }
