"""Group-sequential bounds: how far an arm may fall behind at each look before it is stopped, with bounded error. Does
not import torch.

O'Brien and Fleming's bounds through the error spending of Lan and DeMets (Biometrika 70, 1983). The test statistic at
information fractions t is a Brownian motion over sqrt(t); its crossing probabilities come from recursive numerical
integration (Armitage, McPherson and Rowe, 1969).
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

NORMAL = NormalDist()
NODES, WEIGHTS = np.polynomial.legendre.leggauss(256)  # of an integral from -1 to 1
FARTHEST = 9.0  # standard deviations beyond which a density counts as 0
HALVINGS = 60  # of the interval that holds a bound

Array = NDArray[np.float64]


def spent(fraction: float, level: float) -> float:
    """Return the part of a one-sided error `level` that is spent up to an information fraction (0 to 1)."""
    return 2 - 2 * NORMAL.cdf(NORMAL.inv_cdf(1 - level / 2) / math.sqrt(fraction))


def bounds(fractions: Sequence[float], level: float) -> list[float]:
    """Return, for each look, the value of the test statistic above which the null hypothesis is rejected.

    Args:
        fractions: share of the information at each look, ascending, above 0 and at most 1.
        level: one-sided error over all looks.

    Raises:
        ValueError: the fractions do not ascend from above 0 to at most 1.
    """
    _check(fractions)
    found: list[float] = []
    walk = _Walk()
    before = 0.0
    for fraction in fractions:
        now = spent(fraction, level)
        found.append(walk.bound(fraction, now - before))
        walk.go_on(fraction, found[-1])
        before = now
    return found


def crossing_probabilities(limits: Sequence[float], fractions: Sequence[float]) -> list[float]:
    """Return, for each look, the probability that the test statistic exceeds its limit there for the first time, if the
    null hypothesis is true.

    Raises:
        ValueError: the fractions do not ascend from above 0 to at most 1.
    """
    _check(fractions)
    walk = _Walk()
    found = []
    for fraction, limit in zip(fractions, limits, strict=True):
        found.append(walk.exit(fraction, limit))
        walk.go_on(fraction, limit)
    return found


def _check(fractions: Sequence[float]) -> None:
    steps = [later - earlier for earlier, later in zip([0.0, *fractions], fractions, strict=False)]
    if not steps or min(steps) <= 0 or fractions[-1] > 1:
        raise ValueError(f"information fractions must ascend from above 0 to at most 1, not {[*fractions]}")


class _Walk:
    """Brownian motion that has not exceeded a limit so far: its density at the last look, as nodes with masses."""

    def __init__(self) -> None:
        self._fraction = 0.0
        self._places: Array = np.zeros(1)
        self._masses: Array = np.ones(1)

    def exit(self, fraction: float, limit: float) -> float:
        """Return the probability that the next look is the first above its limit."""
        spread = math.sqrt(fraction - self._fraction)
        above = [1 - NORMAL.cdf((limit * math.sqrt(fraction) - place) / spread) for place in self._places.tolist()]
        return float(self._masses @ np.array(above))

    def bound(self, fraction: float, error: float) -> float:
        """Return the limit at the next look that is exceeded first there with probability `error`."""
        low, high = 0.0, FARTHEST
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.exit(fraction, middle) > error else (low, middle)
        return high

    def go_on(self, fraction: float, limit: float) -> None:
        """Move to the next look, below its limit."""
        spread = math.sqrt(fraction - self._fraction)
        lowest, highest = -FARTHEST * math.sqrt(fraction), limit * math.sqrt(fraction)
        places = (highest - lowest) / 2 * NODES + (highest + lowest) / 2
        steps = (places[:, None] - self._places[None, :]) / spread
        density = np.exp(-(steps**2) / 2) @ self._masses / (spread * math.sqrt(2 * math.pi))
        self._places, self._masses = places, density * WEIGHTS * (highest - lowest) / 2
        self._fraction = fraction
