"""Numbers over steps: one metric's curve, and a histogram's history in columns of bounded number."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

POINTS = 1000  # most points of a drawn curve
COLUMNS = 240  # most columns of a drawn heat map


@dataclass(frozen=True)
class Series:
    """A metric's values `[N]` at ascending steps `[N]`; a value that was not finite is NaN."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    @classmethod
    def of(cls, steps: Sequence[int], values: Sequence[float]) -> Self:
        return cls(np.asarray(steps, dtype=np.int64), np.asarray(values, dtype=np.float64))

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def last(self) -> float | None:
        """The newest finite value."""
        finite = self.values[np.isfinite(self.values)]
        return float(finite[-1]) if len(finite) else None

    @property
    def not_finite(self) -> int:
        """How many values were NaN or infinite."""
        return int((~np.isfinite(self.values)).sum())


def _bucket_width(steps: NDArray[np.int64], most: int) -> int:
    # Powers of two, and borders at their multiples: as a run grows, buckets merge in pairs and else stay as they are,
    # so that drawn points do not jump about.
    width = 1
    while int(steps[-1]) // width - int(steps[0]) // width + 1 > most:
        width *= 2
    return width


def _starts(steps: NDArray[np.int64], width: int) -> NDArray[np.intp]:
    buckets = steps // width
    return np.flatnonzero(np.diff(buckets, prepend=buckets[0] - 1))


def thinned(series: Series, limit: int = POINTS) -> Series:
    """At most `limit` points that keep the lowest and highest value of every stretch, so that no spike is lost."""
    if len(series) <= limit:
        return series
    width = _bucket_width(series.steps, (limit - 2) // 2)
    starts = _starts(series.steps, width)
    lengths = np.diff(np.append(starts, len(series)))
    kept = [np.array([0, len(series) - 1]), starts[np.isnan(np.fmin.reduceat(series.values, starts))]]
    for extreme in (np.fmin, np.fmax):  # both pass over NaN
        found = np.flatnonzero(series.values == np.repeat(extreme.reduceat(series.values, starts), lengths))
        _, firsts = np.unique(series.steps[found] // width, return_index=True)
        kept.append(found[firsts])
    index = np.unique(np.concatenate(kept))
    return Series(series.steps[index], series.values[index])


def averaged(series: Series, limit: int = POINTS // 2) -> Series:
    """At most `limit` points, each the mean of a stretch at its first step. Equal steps give equal points."""
    if len(series) <= limit:
        return series
    starts = _starts(series.steps, _bucket_width(series.steps, limit))
    finite = np.isfinite(series.values)
    sums = np.add.reduceat(np.where(finite, series.values, 0.0), starts)
    counts = np.add.reduceat(finite.astype(np.int64), starts)
    means = np.divide(sums, counts, out=np.full(len(starts), np.nan), where=counts > 0)
    return Series(series.steps[starts], means)


def smoothing_window(points: int) -> int:
    """Points averaged by `smoothed`: a power of two near a fortieth of the curve, and at least eight."""
    return max(8, 1 << max(points // 40, 1).bit_length() - 1)


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
    return Series(series.steps, means)


class HistogramColumns:
    """A histogram's history, added up into at most `limit` columns of equally many steps."""

    def __init__(self, limit: int = COLUMNS) -> None:
        self._limit = limit
        self.width = 1  # steps a column
        self.edges: list[float] = []
        self._columns: dict[int, NDArray[np.int64]] = {}

    def __len__(self) -> int:
        return len(self._columns)

    def add(self, step: int, edges: list[float], counts: list[int]) -> None:
        """Count one step's histogram in. New edges begin the history anew: old counts can't be told apart by them."""
        if edges != self.edges:
            self.edges, self.width, self._columns = edges, 1, {}
        self._count(step // self.width, np.asarray(counts, dtype=np.int64))
        while max(self._columns) - min(self._columns) >= self._limit:
            self.width *= 2
            narrow, self._columns = self._columns, {}
            for column, numbers in narrow.items():
                self._count(column // 2, numbers)

    def _count(self, column: int, counts: NDArray[np.int64]) -> None:
        self._columns[column] = self._columns[column] + counts if column in self._columns else counts

    def shares(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """First step of every column `[C]`, and the share of values in every bin `[bins, C]`; no values: NaN."""
        first, last = min(self._columns), max(self._columns)
        shares = np.full((len(self.edges) - 1, last - first + 1), np.nan)
        for column, counts in self._columns.items():
            if total := counts.sum():
                shares[:, column - first] = counts / total
        return np.arange(first, last + 1) * self.width, shares
