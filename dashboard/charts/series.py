"""Values over steps: the curve of a metric, and the history of a histogram, in a bounded number of buckets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

BUCKETS = 500  # per curve; each is drawn with its min and max, so at most twice as many points
POINTS = 2 * BUCKETS  # max points of a drawn curve
KEPT = 512  # cached curves of each kind
COLUMNS = 240  # max columns of a drawn heat map
WINDOW = 8  # values of a curve that `smoothed` averages: the same for all curves
EMA = 0.9  # weight of the values before, in an exponential moving average
OUTLIER = 100.0  # times the usual size of the values
MOST_OUTLIERS = 0.02  # share of the values; one is always permitted


Smoothing = Literal["mean", "ema", "none"]


@dataclass(frozen=True, eq=False)
class StepSeries:
    """The values `[N]` of a metric at ascending steps `[N]`; a non-finite value is NaN. Equal only to itself.

    In a long curve each value is the mean of a bucket; `low` and `high` are its min and max, `first` its first step,
    and `latest` its last finite value. `non_finite` counts its values that are NaN or infinite.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    first: NDArray[np.int64]
    latest: NDArray[np.float64]
    non_finite: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        steps: Sequence[int],
        values: Sequence[float | None],
        low: Sequence[float | None] | None = None,
        high: Sequence[float | None] | None = None,
        *,
        first: Sequence[int] | None = None,
        latest: Sequence[float | None] | None = None,
        non_finite: Sequence[int] | None = None,
    ) -> Self:
        """Return the series of these lists; those that are not given follow from the values."""
        means = np.asarray(values, dtype=np.float64)
        low, high, latest = (values if given is None else given for given in (low, high, latest))
        return cls(
            np.asarray(steps, dtype=np.int64),
            means,
            np.asarray(low, dtype=np.float64),
            np.asarray(high, dtype=np.float64),
            np.asarray(steps if first is None else first, dtype=np.int64),
            np.asarray(latest, dtype=np.float64),
            np.asarray(~np.isfinite(means) if non_finite is None else non_finite, dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def current(self) -> float | None:
        """The current value: the last finite one that the job reported, on every page."""
        finite = self.latest[np.isfinite(self.latest)]
        return float(finite[-1]) if len(finite) else None

    @property
    def lost_at(self) -> int | None:
        """The first step of the values at the end that are all NaN or infinite; None if the last one is finite."""
        finite = np.flatnonzero(np.isfinite(self.latest))
        begin = int(finite[-1]) + 1 if len(finite) else 0
        return int(self.first[begin]) if begin < len(self) else None


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


@lru_cache(KEPT)
def smoothed(series: StepSeries, smoothing: Smoothing = "mean") -> StepSeries:
    """Return the smoothed values, and the same of `low` and `high`. Non-finite values do not count, and stay gaps.

    `mean`: of each value and the values before it in a window of WINDOW. A huge value changes only the means of the
    windows that it is in. `ema`: exponential moving average with the weight EMA of what came before, corrected for its
    start at 0 (Kingma and Ba, 2015, section 3). `none`: the values themselves.
    """
    if smoothing == "none" or not len(series):
        return series
    smooth = _window_means if smoothing == "mean" else _moving_averages
    bounds = [smooth(values).tolist() for values in (series.values, series.low, series.high)]
    return StepSeries.of(series.steps.tolist(), *bounds)


def _window_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    padded = np.concatenate([np.full(WINDOW - 1, np.nan), values])
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)
    finite = np.isfinite(windows)
    numbers = finite.sum(axis=1)
    sums = np.where(finite, windows, 0.0).sum(axis=1)
    averages: NDArray[np.float64] = np.divide(
        sums, numbers, out=np.full(len(values), np.nan), where=np.isfinite(values)
    )
    return averages


def _moving_averages(values: NDArray[np.float64]) -> NDArray[np.float64]:
    averages = np.full(len(values), np.nan)
    total = weight = 0.0
    for place, value in enumerate(values.tolist()):
        if math.isfinite(value):
            total, weight = EMA * total + (1 - EMA) * value, EMA * weight + (1 - EMA)
            averages[place] = total / weight
    return averages


def fence(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the range of the values without a few huge ones; None if there are none of these, or too many.

    A value is huge if it is further from the quartiles than OUTLIER times their distance, and times the median.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    lower, middle, upper = np.percentile(finite, [25, 50, 75])
    reach = OUTLIER * max(upper - lower, abs(middle))
    inside = finite[(finite >= lower - reach) & (finite <= upper + reach)]
    number = len(finite) - len(inside)
    if not reach or not 0 < number <= max(1, len(finite) * MOST_OUTLIERS):
        return None
    return float(inside.min()), float(inside.max())


@lru_cache(KEPT)
def scaled(series: StepSeries, factor: float) -> StepSeries:
    """Return the curve with all values multiplied by a factor. Equal arguments give the same object."""
    if factor == 1:
        return series
    values = {name: getattr(series, name) * factor for name in ("values", "low", "high", "latest")}
    return replace(series, **values)


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
