"""Several jobs' curves over one another: where their points lie on an axis, and seeds of one recipe as one line."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from calibrl.schemas import Job
from dashboard.charts.figures import Curve
from dashboard.charts.series import Series
from dashboard.reads.live import Bucketed
from dashboard.views.spec_diff import flat

Axis = Literal["step", "tokens", "time"]
AXES: dict[Axis, str] = {
    "step": "step",
    "tokens": "completion tokens so far",
    "time": "seconds since the job began",
}
# A step's completion tokens are what it made a second, times its seconds.
RATE, SECONDS = "perf/tokens_per_second", "perf/step_seconds"

Found = Mapping[tuple[UUID, str], Bucketed]  # by job and metric


@dataclass(frozen=True)
class Line:
    """What is drawn as one line: a job, or several that differ in their seeds only."""

    name: str
    colour: str
    jobs: tuple[Job, ...]


def recipe(job: Job) -> frozenset[tuple[str, str]]:
    """What a job's spec asks for, its seeds and names left out."""
    fields = flat(job.spec).items()
    named = ("name", "labels", "notes")
    return frozenset(
        (at, value) for at, value in fields if at.split(".")[-1] != "seed" and at.split(".")[0] not in named
    )


def grouped(jobs: Sequence[Job]) -> list[tuple[Job, ...]]:
    """Jobs of one recipe together, in the order of their first ones."""
    groups: dict[frozenset[tuple[str, str]], list[Job]] = {}
    for job in jobs:
        groups.setdefault(recipe(job), []).append(job)
    return [tuple(group) for group in groups.values()]


def curves(lines: Sequence[Line], found: Found, metric: str, axis: Axis) -> Iterator[Curve]:
    """The lines of one metric; of several seeds their mean, with a band from the least to the greatest of them."""
    sparse = metric.startswith("validation/")
    for line in lines:
        known = [(job, series) for job in line.jobs if (series := found.get((job.id, metric))) is not None]
        placed = [(series, at) for job, series in known if (at := _places(job, series, found, axis))]
        if not placed:
            continue
        if len(line.jobs) > 1:
            yield Curve(line.name, _band(placed), line.colour, sparse=sparse, band=True)
        else:
            [(series, places)] = placed
            drawn = Series.of(places, series.mean, series.min, series.max)
            yield Curve(line.name, drawn, line.colour, sparse=sparse)


def _places(job: Job, series: Bucketed, found: Found, axis: Axis) -> list[int]:
    """Where a series' buckets end on an axis."""
    if axis == "time" and job.started_at is not None:
        return [int((at - job.started_at).total_seconds()) for at in series.ts]
    if axis == "tokens":
        steps, tokens = _tokens(job, found)
        return [int(at) for at in np.interp(series.last_step, steps, tokens)] if steps else []
    return series.last_step


def _tokens(job: Job, found: Found) -> tuple[list[int], list[float]]:
    """Steps, and the completion tokens that were made until their ends."""
    rate, seconds = found.get((job.id, RATE)), found.get((job.id, SECONDS))
    if rate is None or seconds is None:
        return [], []
    lasted = dict(zip(seconds.start, seconds.mean, strict=True))
    made = [
        (a or 0.0) * (lasted.get(start) or 0.0) * count
        for a, start, count in zip(rate.mean, rate.start, rate.count, strict=True)
    ]
    return rate.last_step, list(accumulate(made))


def _band(placed: Sequence[tuple[Bucketed, list[int]]]) -> Series:
    """The mean of several jobs in each bucket that any of them has, at the mean of their places."""
    starts = sorted({start for series, _ in placed for start in series.start})
    at = {start: number for number, start in enumerate(starts)}
    values: NDArray[np.float64] = np.full((len(placed), len(starts)), np.nan)  # [jobs, buckets]
    where: NDArray[np.float64] = np.full((len(placed), len(starts)), np.nan)
    for row, (series, places) in enumerate(placed):
        columns = [at[start] for start in series.start]
        where[row, columns] = places
        values[row, columns] = [np.nan if mean is None else mean for mean in series.mean]
    known = np.isfinite(values).any(axis=0)
    values, where = values[:, known], where[:, known]
    means, low, high = (measure(values, axis=0).tolist() for measure in (np.nanmean, np.nanmin, np.nanmax))
    return Series.of(np.nanmean(where, axis=0).astype(int).tolist(), means, low, high)
