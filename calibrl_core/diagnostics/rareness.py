"""Family rareness/: |A|, the weight that CalibRL gives a rollout by how rare its outcome is in its group."""

import numpy as np

from calibrl_core.config import TrainSettings
from calibrl_core.diagnostics.base import StepBatch, mean_or_nothing
from calibrl_core.diagnostics.histograms import Histogram, by_outcome

BINS = 22


def rareness(batch: StepBatch) -> dict[str, float]:
    """Mean |A| over all rollouts, over those that passed, and over those that failed."""
    weights = batch.advantages.abs()
    return {
        **mean_or_nothing("rareness/mean", weights),
        **mean_or_nothing("rareness/correct", weights[batch.passed]),
        **mean_or_nothing("rareness/wrong", weights[~batch.passed]),
    }


def rareness_histograms(batch: StepBatch, highest: float) -> dict[str, Histogram]:
    """|A| of every rollout, from 0 to `highest`."""
    edges = np.linspace(0.0, highest, BINS + 1)
    return by_outcome(
        "rareness",
        "rareness/correct",
        "rareness/wrong",
        batch.advantages.abs().flatten(),
        batch.passed.flatten(),
        edges,
    )


def highest_rareness(config: TrainSettings) -> float:
    """Return the largest |A| that a group can have."""
    span = sum(reward.weight for reward in config.rewards)
    return config.algorithm.max_abs_advantage(config.rollout.group_size, span)
