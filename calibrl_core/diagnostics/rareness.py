"""Family rareness/: |A|, the weight that CalibRL gives a rollout by how rare its outcome is in its group."""

import numpy as np

from calibrl_core.diagnostics.base import StepBatch, mean_or_nothing

BINS = 22


def rareness(batch: StepBatch) -> dict[str, float]:
    """Mean |A| over all rollouts, over those that passed, and over those that failed."""
    weights = batch.advantages.abs()
    return {
        **mean_or_nothing("rareness/mean", weights),
        **mean_or_nothing("rareness/correct", weights[batch.passed]),
        **mean_or_nothing("rareness/wrong", weights[~batch.passed]),
    }


def rareness_histogram(batch: StepBatch, highest: float) -> tuple[list[float], list[int]]:
    """Edges (from 0 to `highest`, the same at every step) and counts of |A|; larger ones fall in the last bin."""
    edges = np.linspace(0.0, highest, BINS + 1)
    values = batch.advantages.abs().flatten().cpu().numpy().clip(0.0, highest)
    return edges.tolist(), np.histogram(values, edges)[0].tolist()
