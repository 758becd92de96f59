"""Statistics of studies: paired differences over seeds and prompts. Does not import torch.

Two arms ran with the same seeds and were evaluated on the same prompts. `D[s, p]` is the accuracy of the second arm
minus that of the first, for seed s and prompt p, and follows D = mean + seed effect + prompt effect + rest. Seeds and
prompts are both samples: a result must hold for other seeds and other prompts.

- The hierarchical bootstrap resamples seeds, then prompts. All seeds of a resample have the same prompts, because all
  seeds were evaluated on the same prompts (Owen, "The pigeonhole bootstrap", 2007).
- A bootstrap of a few seeds is too narrow. Its percentiles are stretched to a width from the two-way analysis of
  variance: half of it, squared, is the sum of the squared half-widths of the intervals over seeds and over prompts,
  each with its own quantile of Student's t.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibrl_core.evaluation.bootstrap import COUNTS_AT_ONCE, RESAMPLES

NORMAL = NormalDist()
NODES, WEIGHTS = np.polynomial.legendre.leggauss(128)  # of an integral from -1 to 1
NORMAL_FROM = 10_000.0  # degrees of freedom from which Student's t counts as normal
EXACT = 1e-6  # relative width of the last interval that holds a quantile or a p-value
SMALLEST_P = 1e-9
POWER = 0.8  # probability of a verdict for which needed seeds and prompts are given
MOST_SEEDS, MOST_PROMPTS = 10_000, 10_000_000  # that `needed` considers

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Variances:
    """Variances of a difference between two arms: between seeds, between prompts, and the rest."""

    seeds: float
    prompts: float
    rest: float

    def half_width(self, seeds: int, prompts: int, error: float) -> float:
        """Return half the width of the interval of the mean over this many seeds and prompts, which misses the true
        difference with probability `error`.
        """
        of_seeds = math.sqrt((self.seeds + self.rest / prompts) / seeds)
        return math.hypot(
            t_limit(error, seeds - 1) * of_seeds, t_limit(error, max(1, prompts - 1)) * self._of_prompts(prompts)
        )

    def standard_error(self, seeds: int, prompts: int) -> float:
        """Return the standard error of the mean over this many seeds and prompts."""
        return math.hypot(math.sqrt((self.seeds + self.rest / prompts) / seeds), self._of_prompts(prompts))

    def _of_prompts(self, prompts: int) -> float:
        return math.sqrt(self.prompts / prompts)


@dataclass(frozen=True)
class ArmDifference:
    """Mean of the second arm minus that of the first, over S seeds and N prompts, with its interval. `p_value`:
    two-sided, of no difference.
    """

    difference: float
    low: float
    high: float
    p_value: float
    seeds: int
    prompts: int
    variances: Variances


@dataclass(frozen=True)
class Needed:
    """Seeds that are needed with the prompts of now, and prompts with the seeds of now. None: more do not suffice."""

    seeds: int | None
    prompts: int | None


def arm_difference(first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95, seed: int = 0) -> ArmDifference:
    """Compare two arms.

    Args:
        first, second: accuracies `[S, N]` of S seeds on N prompts, in the same order.
        confidence: of the interval.
        seed: of the resampling.

    Raises:
        ValueError: the shapes differ, or there are fewer than two seeds or prompts.
    """
    differences = _differences(first, second)
    if differences.ndim != 2 or min(differences.shape) < 2:
        raise ValueError(f"a comparison needs two or more seeds and prompts, not {differences.shape}")
    seeds, prompts = differences.shape
    mean = float(differences.mean())
    variances = _variances(differences)
    half = variances.half_width(seeds, prompts, 1 - confidence)
    low, high = np.quantile(resampled_means(differences, seed), [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    stretch = 2 * half / (high - low) if high > low else 0.0
    return ArmDifference(
        mean,
        mean + stretch * (low - mean),
        mean + stretch * (high - mean),
        _p_value(mean, lambda error: variances.half_width(seeds, prompts, error)),
        seeds,
        prompts,
        variances,
    )


def seed_difference(first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95) -> ArmDifference:
    """Compare two arms by one value per seed `[S]`: Student's paired t. The interval is over seeds only.

    Raises:
        ValueError: the lengths differ, or there are fewer than two seeds.
    """
    differences = _differences(first, second)
    if differences.ndim != 1 or len(differences) < 2:
        raise ValueError(f"a comparison needs two or more seeds, not {differences.shape}")
    seeds, mean = len(differences), float(differences.mean())
    variance = float(differences.var(ddof=1))
    spread = math.sqrt(variance / seeds)
    half = t_limit(1 - confidence, seeds - 1) * spread
    p_value = _p_value(mean, lambda error: t_limit(error, seeds - 1) * spread)
    return ArmDifference(mean, mean - half, mean + half, p_value, seeds, 1, Variances(variance, 0.0, 0.0))


def _differences(first: ArrayLike, second: ArrayLike) -> Array:
    before, after = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if before.shape != after.shape:
        raise ValueError(f"two arms need the same seeds and prompts, not {before.shape} and {after.shape}")
    return after - before


def resampled_means(differences: Array, seed: int) -> Array:
    """Return RESAMPLES means of `[S, N]` differences: seeds are drawn with replacement, then prompts, the same for all
    drawn seeds.
    """
    seeds, prompts = differences.shape
    size = max(1, COUNTS_AT_ONCE // prompts)
    means = []
    for start in range(0, RESAMPLES, size):
        of_seeds, of_prompts = _drawn(seeds, prompts, min(size, RESAMPLES - start), seed, start)
        means.append(((of_seeds @ differences) * of_prompts).sum(1) / differences.size)
    return np.concatenate(means)


@lru_cache(1)
def _drawn(seeds: int, prompts: int, count: int, seed: int, start: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how often each seed `[count, seeds]` and each prompt `[count, prompts]` is drawn. It is kept: the pairs of
    a study share it.
    """
    rng = np.random.default_rng([seed, start])
    return (
        rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=count),
        rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=count),
    )


def _variances(differences: Array) -> Variances:
    """Return the variance components of the two-way analysis of variance of `[S, N]` differences."""
    seeds, prompts = differences.shape
    mean = differences.mean()
    by_seed, by_prompt = differences.mean(1), differences.mean(0)
    rest = float(((differences - by_seed[:, None] - by_prompt[None, :] + mean) ** 2).sum()) / (
        (seeds - 1) * (prompts - 1)
    )
    of_seeds, of_prompts = float(by_seed.var(ddof=1)), float(by_prompt.var(ddof=1))
    # Seed means vary by seeds + rest / N. If they vary by less than rest / N, that is taken as it is.
    rest_of_seeds = min(rest, prompts * of_seeds)
    return Variances(max(0.0, of_seeds - rest / prompts), max(0.0, of_prompts - rest / seeds), rest_of_seeds)


def _p_value(mean: float, half_width: Callable[[float], float]) -> float:
    """Return the smallest error whose interval excludes 0, SMALLEST_P or more."""
    if half_width(SMALLEST_P) < abs(mean):
        return SMALLEST_P
    return math.exp(_zero(lambda error: abs(mean) - half_width(math.exp(error)), math.log(SMALLEST_P), 0.0))


def holm(
    p_values: Sequence[float], error: float, nominal: Callable[[float], float] = lambda error: error
) -> list[bool]:
    """Return which differences are distinguishable: Holm's step-down procedure keeps the probability of any wrong one
    below `error`.

    `nominal`: largest p-value that rejects one hypothesis with this error; lower than it if there were looks before.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    rejected = [False] * len(p_values)
    for rank, place in enumerate(order):
        if p_values[place] > nominal(error / (len(p_values) - rank)):
            break
        rejected[place] = True
    return rejected


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """Return the p-values after Holm's correction: the smallest errors with which each would be distinguishable."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def needed(found: ArmDifference, *, confidence: float = 0.95) -> Needed:
    """Return the seeds or prompts with which a difference would be distinguishable with probability POWER, if it is
    really as large as measured and varies as measured.
    """

    def enough(seeds: int, prompts: int) -> bool:
        half = found.variances.half_width(seeds, prompts, 1 - confidence)
        return half + NORMAL.inv_cdf(POWER) * found.variances.standard_error(seeds, prompts) <= abs(found.difference)

    if found.difference == 0:
        return Needed(None, None)
    return Needed(
        _smallest(lambda seeds: enough(seeds, found.prompts), 2, MOST_SEEDS),
        _smallest(lambda prompts: enough(found.seeds, prompts), 2, MOST_PROMPTS),
    )


def _smallest(enough: Callable[[int], bool], low: int, high: int) -> int | None:
    """Return the smallest number that is enough, of numbers of which all larger ones are too."""
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


def two_sided(statistic: float, degrees: float) -> float:
    """Return the probability that Student's t is farther from 0 than `statistic` (at least 0).

    With t = sqrt(degrees) tan(angle) the density is proportional to cos(angle)^(degrees - 1).
    """
    if degrees >= NORMAL_FROM:
        return math.erfc(statistic / math.sqrt(2))
    angle = math.atan(statistic / math.sqrt(degrees))
    # The integral beyond the angle, not up to it, so that small probabilities are exact.
    half = (math.pi / 2 - angle) / 2
    part = float(np.cos(angle + half * (NODES + 1)) ** (degrees - 1) @ WEIGHTS) * half
    whole = math.sqrt(math.pi) / 2 * math.exp(math.lgamma(degrees / 2) - math.lgamma((degrees + 1) / 2))
    return min(1.0, part / whole)


def t_limit(error: float, degrees: float) -> float:
    """Return the distance from 0 that Student's t exceeds with probability `error`."""
    high = 1.0
    while two_sided(high, degrees) > error:
        high *= 2
    return _zero(lambda limit: math.log(error / two_sided(limit, degrees)), 0.0, high)


def _zero(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a rising function is 0, between `low` (below 0) and `high` (0 or above), by the Illinois method."""
    at_low, at_high = function(low), function(high)
    side = 0
    while high - low > EXACT and at_high > 0:
        middle = high - at_high * (high - low) / (at_high - at_low)
        found = function(middle)
        if abs(found) < EXACT:
            return middle
        if found > 0:
            high, at_high, at_low = middle, found, at_low / (2 if side > 0 else 1)
            side = 1
        else:
            low, at_low, at_high = middle, found, at_high / (2 if side < 0 else 1)
            side = -1
    return high
