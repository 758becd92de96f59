"""Numbers over steps: one metric's curve, and a histogram's history, both in buckets of bounded number."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

BUCKETS = 500  # of a curve that is read; drawn with their least and greatest value, at most twice as many points
POINTS = 2 * BUCKETS  # most points of a drawn curve
KEPT = 512  # curves of each kind that are kept, for whoever looks next
COLUMNS = 240  # most columns of a drawn heat map


@dataclass(frozen=True, eq=False)
class Series:
    """A metric's values `[N]` at ascending steps `[N]`; a value that was not finite is NaN. Equal only to itself.

    Of a long curve each is the mean of a bucket, whose least and greatest values are `low` and `high`.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        steps: Sequence[int],
        values: Sequence[float | None],
        low: Sequence[float | None] | None = None,
        high: Sequence[float | None] | None = None,
    ) -> Self:
        means = np.asarray(values, dtype=np.float64)
        bounds = (means if given is None else np.asarray(given, dtype=np.float64) for given in (low, high))
        return cls(np.asarray(steps, dtype=np.int64), means, *bounds)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def last(self) -> float | None:
        """The newest finite value."""
        finite = self.values[np.isfinite(self.values)]
        return float(finite[-1]) if len(finite) else None


def spikes(series: Series) -> Series:
    """The line through the least and the greatest value of each bucket, so that no spike is lost."""
    if np.array_equal(series.low, series.high, equal_nan=True):
        return series
    return Series.of(np.repeat(series.steps, 2).tolist(), np.stack([series.low, series.high], axis=1).ravel().tolist())


@lru_cache(KEPT)
def averaged(series: Series, limit: int) -> Series:
    """At most `limit` points, each the mean of a stretch at its first step. Equal steps give equal points."""
    if len(series) <= limit:
        return series
    width = 1
    while int(series.steps[-1]) // width - int(series.steps[0]) // width + 1 > limit:
        width *= 2
    buckets = series.steps // width
    starts = np.flatnonzero(np.diff(buckets, prepend=buckets[0] - 1))
    finite = np.isfinite(series.values)
    sums = np.add.reduceat(np.where(finite, series.values, 0.0), starts)
    counts = np.add.reduceat(finite.astype(np.int64), starts)
    means = np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0)
    return Series.of(series.steps[starts].tolist(), means.tolist())


def smoothing_window(points: int) -> int:
    """Points averaged by `smoothed`: a power of two near a fortieth of the curve, and at least eight."""
    return max(8, 1 << max(points // 40, 1).bit_length() - 1)


@lru_cache(KEPT)
def smoothed(series: Series) -> Series:
    """The mean of each value and those just before it; values that are not finite do not count."""
    window = smoothing_window(len(series))
    finite = np.isfinite(series.values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, series.values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    ends = np.arange(1, len(series) + 1)
    begins = np.maximum(ends - window, 0)
    number = counts[ends] - counts[begins]
    means = np.divide(sums[ends] - sums[begins], number, out=np.full(len(series), np.nan), where=number > 0)
    return Series.of(series.steps.tolist(), means.tolist())


class HistogramColumns:
    """A histogram's history, in columns of `width` steps. Equal only to itself."""

    def __init__(self, width: int = 1) -> None:
        self.width = width
        self.edges: list[float] = []
        self._columns: dict[int, NDArray[np.int64]] = {}

    def __len__(self) -> int:
        return len(self._columns)

    def copy(self) -> "HistogramColumns":
        """The same columns, which later ones are not put into."""
        made = HistogramColumns(self.width)
        made.edges, made._columns = self.edges, dict(self._columns)
        return made

    def put(self, step: int, edges: list[float], counts: list[int]) -> bool:
        """Take in the column that begins at a step, in place of what was there; whether that changed anything. New
        edges begin the history anew: old counts can't be told apart by them."""
        if edges != self.edges:
            self.edges, self._columns = edges, {}
        column, known = np.asarray(counts, dtype=np.int64), self._columns.get(step // self.width)
        self._columns[step // self.width] = column
        return known is None or not np.array_equal(known, column)

    def shares(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """First step of every column `[C]`, and the share of values in every bin `[bins, C]`; no values: NaN."""
        first, last = min(self._columns), max(self._columns)
        shares = np.full((len(self.edges) - 1, last - first + 1), np.nan)
        for column, counts in self._columns.items():
            if total := counts.sum():
                shares[:, column - first] = counts / total
        return np.arange(first, last + 1) * self.width, shares
