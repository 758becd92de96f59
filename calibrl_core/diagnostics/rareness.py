"""Family rareness/: |A|, CalibRL's weight of a rollout, which is larger the rarer its outcome is in its group."""

import numpy as np

from calibrl_core.config import TrainSettings
from calibrl_core.diagnostics.base import StepBatch, mean_if_any
from calibrl_core.diagnostics.histograms import Histogram, outcome_histograms

BINS = 22


def rareness(batch: StepBatch) -> dict[str, float]:
    """Return the mean |A| over all rollouts, over those that passed, and over those that failed."""
    weights = batch.advantages.abs()
    return {
        **mean_if_any("rareness/mean", weights),
        **mean_if_any("rareness/correct", weights[batch.passed]),
        **mean_if_any("rareness/wrong", weights[~batch.passed]),
    }


def rareness_histograms(batch: StepBatch, highest: float) -> dict[str, Histogram]:
    """Return histograms of |A| over all rollouts, from 0 to `highest`."""
    edges = np.linspace(0.0, highest, BINS + 1)
    return outcome_histograms(
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
