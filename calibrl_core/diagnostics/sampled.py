"""Family sampled/: with dynamic sampling, all groups that a step sampled, including those it does not learn from.

The groups that a step learns from are selected to differ in correctness: they always have an advantage, and about half
of their rollouts are right. So the health rules read the metrics of this family if they exist.
"""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from calibrl_core.rollout.base import Rollouts
from calibrl_core.verifiers.scorer import Score, failure_counts


class SampledGroups:
    """Sums over the groups that a step has sampled so far, so that their tokens need not stay in memory."""

    def __init__(self) -> None:
        self._rewards: list[Tensor] = []
        self._right = self._strict = self._truncated = self._tokens = 0
        self._entropy = 0.0
        self._dropped = 0
        self._failures: Counter[str] = Counter()

    def add(self, rewards: Tensor, rollouts: Rollouts, scores: Sequence[Score], *, dropped: int = 0) -> None:
        """Add groups. rewards: `[P, G]`, those that advantages are computed from. scores: one per rollout. dropped: the
        number of groups that leave the step for lack of a verdict.
        """
        self._dropped += dropped
        self._rewards.append(rewards)
        self._right += sum(score.passed for score in scores)
        self._strict += sum(score.strict for score in scores)
        self._failures += failure_counts(scores)
        self._truncated += int(rollouts.truncated.sum())
        self._tokens += int(rollouts.mask.sum())
        self._entropy += rollouts.entropies[rollouts.mask].sum(dtype=torch.float64).item()

    def dropped_metrics(self) -> dict[str, float]:
        """Return the number of groups that leave the step for lack of a verdict, if there are any."""
        return {"verdict/dropped_groups": float(self._dropped)} if self._dropped else {}

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the same name without `sampled/`, over all sampled groups, and the number of sampled
        prompts.
        """
        rewards = torch.cat(self._rewards)  # [P, G]
        rollouts = rewards.numel()
        return self.dropped_metrics() | {
            "exploration/sampled_prompts": float(len(rewards)),
            "sampled/reward/mean": rewards.mean().item(),
            "sampled/reward/std": rewards.std(unbiased=False).item(),
            "sampled/reward/answer_accuracy": self._right / rollouts,
            "sampled/reward/strict_accuracy": self._strict / rollouts,
            "sampled/reward/verifier_failure_share": max(self._failures.values(), default=0) / rollouts,
            "sampled/exploration/entropy": self._entropy / self._tokens,
            "sampled/exploration/active_groups": (rewards != rewards[:, :1]).any(-1).double().mean().item(),
            "sampled/length/truncated_share": self._truncated / rollouts,
        }
