"""Bootstrap intervals over prompts, and what they say of the difference between models. Loads no torch."""

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
    """The second model's mean accuracy minus the first's over the same prompts, with its 95 % interval."""

    first: int
    second: int
    difference: float
    low: float
    high: float

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves 0 out."""
        return not self.low <= 0 <= self.high


def differences(accuracies: Sequence[NDArray[np.float64]], seed: int) -> list[Difference]:
    """Of every two models, the later one minus the earlier one; each `[N]`, the same prompts in the same order."""
    pairs = list(combinations(range(len(accuracies)), 2))
    if not pairs:
        return []
    per_prompt = np.stack([accuracies[second] - accuracies[first] for first, second in pairs], axis=1)  # [N, pairs]
    means, (lows, highs) = per_prompt.mean(0), intervals(per_prompt, seed)
    rows = zip(pairs, means.tolist(), lows.tolist(), highs.tolist(), strict=True)
    return [Difference(first, second, mean, low, high) for (first, second), mean, low, high in rows]


def intervals(per_prompt: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Bounds `[2, M]` of the bootstrap's 95 % interval of each mean, resampling prompts; per_prompt `[N, M]`."""
    rng = np.random.default_rng(seed)
    prompts = len(per_prompt)
    size = max(1, COUNTS_AT_ONCE // prompts)
    drawn = [
        rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=min(size, RESAMPLES - start)) @ per_prompt
        for start in range(0, RESAMPLES, size)
    ]
    return np.percentile(np.concatenate(drawn) / prompts, INTERVAL, axis=0)
