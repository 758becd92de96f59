"""Values over steps: the curve of a metric, and the history of a histogram, in a bounded number of buckets."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

BUCKETS = 500  # per curve; each is drawn with its min and max, so at most twice as many points
POINTS = 2 * BUCKETS  # max points of a drawn curve
KEPT = 512  # cached curves of each kind
COLUMNS = 240  # max columns of a drawn heat map


@dataclass(frozen=True, eq=False)
class StepSeries:
    """The values `[N]` of a metric at ascending steps `[N]`; a non-finite value is NaN. Equal only to itself.

    In a long curve each value is the mean of a bucket; `low` and `high` are its min and max.
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
        """Return the series of these lists; without `low` and `high` they are the values."""
        means = np.asarray(values, dtype=np.float64)
        bounds = (means if bound is None else np.asarray(bound, dtype=np.float64) for bound in (low, high))
        return cls(np.asarray(steps, dtype=np.int64), means, *bounds)

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def last(self) -> float | None:
        """The last finite value."""
        finite = self.values[np.isfinite(self.values)]
        return float(finite[-1]) if len(finite) else None


def spikes(series: StepSeries) -> StepSeries:
    """Return the line through min and max of each bucket, so that no spike is lost."""
    if np.array_equal(series.low, series.high, equal_nan=True):
        return series
    return StepSeries.of(
        np.repeat(series.steps, 2).tolist(), np.stack([series.low, series.high], axis=1).ravel().tolist()
    )


@lru_cache(KEPT)
def averaged(series: StepSeries, limit: int) -> StepSeries:
    """Return at most `limit` points, each the mean of a range of steps at its first step."""
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
    return StepSeries.of(series.steps[starts].tolist(), means.tolist())


def smoothing_window(points: int) -> int:
    """Return the number of points that `smoothed` averages: a power of two near 1/40 of the curve, at least 8."""
    return max(8, 1 << max(points // 40, 1).bit_length() - 1)


@lru_cache(KEPT)
def smoothed(series: StepSeries) -> StepSeries:
    """Return the mean of each value and the values before it in a window; non-finite values do not count."""
    window = smoothing_window(len(series))
    finite = np.isfinite(series.values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, series.values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    ends = np.arange(1, len(series) + 1)
    begins = np.maximum(ends - window, 0)
    number = counts[ends] - counts[begins]
    means = np.divide(sums[ends] - sums[begins], number, out=np.full(len(series), np.nan), where=number > 0)
    return StepSeries.of(series.steps.tolist(), means.tolist())


@lru_cache(KEPT)
def scaled(series: StepSeries, factor: float) -> StepSeries:
    """Return the curve with all values multiplied by a factor. Equal arguments give the same object."""
    if factor == 1:
        return series
    return StepSeries(series.steps, series.values * factor, series.low * factor, series.high * factor)


class HistogramColumns:
    """The history of a histogram in columns of `width` steps. Equal only to itself."""

    def __init__(self, width: int = 1) -> None:
        self.width = width
        self.edges: list[float] = []
        self._columns: dict[int, NDArray[np.int64]] = {}

    def __len__(self) -> int:
        return len(self._columns)

    def copy(self) -> "HistogramColumns":
        """Return a copy that later columns do not change."""
        copied = HistogramColumns(self.width)
        copied.edges, copied._columns = self.edges, dict(self._columns)
        return copied

    def put(self, step: int, edges: list[float], counts: list[int]) -> bool:
        """Set the column that begins at a step. Return true if that changed a value.

        New edges restart the history, because old counts do not fit them.
        """
        if edges != self.edges:
            self.edges, self._columns = edges, {}
        column, before = np.asarray(counts, dtype=np.int64), self._columns.get(step // self.width)
        self._columns[step // self.width] = column
        return before is None or not np.array_equal(before, column)

    def shares(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the first step per column `[C]`, and the share of values per bin `[bins, C]`; NaN without values."""
        first, last = min(self._columns), max(self._columns)
        shares = np.full((len(self.edges) - 1, last - first + 1), np.nan)
        for column, counts in self._columns.items():
            if total := counts.sum():
                shares[:, column - first] = counts / total
        return np.arange(first, last + 1) * self.width, shares
