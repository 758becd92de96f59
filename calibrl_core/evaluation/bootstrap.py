"""Bootstrap intervals over prompts, for means and for paired differences between models. Does not import torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
INTERVAL = (2.5, 97.5)  # percentiles
COUNTS_AT_ONCE = 4_000_000  # resampled prompts held in memory


@dataclass(frozen=True)
class Difference:
    """Mean accuracy of the second model minus that of the first over the same prompts, with its 95 % interval."""

    first: int
    second: int
    difference: float
    low: float
    high: float

    @property
    def distinguishable(self) -> bool:
        """Return if the interval excludes 0."""
        return not self.low <= 0 <= self.high


def paired_differences(accuracies: Sequence[NDArray[np.float64]], seed: int) -> list[Difference]:
    """Return, for every two models, the later one minus the earlier one.

    Args:
        accuracies: per model `[N]`, for the same prompts in the same order.
        seed: of the resampling.
    """
    pairs = list(combinations(range(len(accuracies)), 2))
    if not pairs:
        return []
    per_prompt = np.stack([accuracies[second] - accuracies[first] for first, second in pairs], axis=1)  # [N, pairs]
    means, (lows, highs) = per_prompt.mean(0), intervals(per_prompt, seed)
    rows = zip(pairs, means.tolist(), lows.tolist(), highs.tolist(), strict=True)
    return [Difference(first, second, mean, low, high) for (first, second), mean, low, high in rows]


def intervals(per_prompt: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Return the bounds `[2, M]` of the 95 % bootstrap interval of each mean of per_prompt `[N, M]`, resampling
    prompts.
    """
    rng = np.random.default_rng(seed)
    prompts = len(per_prompt)
    size = max(1, COUNTS_AT_ONCE // prompts)
    drawn = [
        rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=min(size, RESAMPLES - start)) @ per_prompt
        for start in range(0, RESAMPLES, size)
    ]
    return np.percentile(np.concatenate(drawn) / prompts, INTERVAL, axis=0)
