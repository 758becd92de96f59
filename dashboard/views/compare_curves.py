"""Curves of several jobs in one chart: places on the x axis, and seeds of one config as one line."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from calibrl.schemas import Job
from dashboard.charts.figures import Curve
from dashboard.charts.series import StepSeries
from dashboard.reads.live import Buckets
from dashboard.views.spec_diff import flat

Axis = Literal["step", "tokens", "time"]
AXES: dict[Axis, str] = {
    "step": "step",
    "tokens": "completion tokens so far",
    "time": "seconds since the start of the job",
}
# Completion tokens of a step: its tokens per second, multiplied by its seconds.
RATE, SECONDS = "perf/tokens_per_second", "perf/step_seconds"

JobCurves = Mapping[tuple[UUID, str], Buckets]  # by job and metric


@dataclass(frozen=True)
class JobLine:
    """One line of a chart: a job, or several jobs that differ in their seeds only."""

    name: str
    colour: str
    jobs: tuple[Job, ...]


def config(job: Job) -> frozenset[tuple[str, str]]:
    """Return the fields of a job's spec with their values, without seeds, name, labels and notes."""
    naming = ("name", "labels", "notes")
    return frozenset(
        (field, value)
        for field, value in flat(job.spec).items()
        if field.split(".")[-1] != "seed" and field.split(".")[0] not in naming
    )


def same_config(jobs: Sequence[Job]) -> list[tuple[Job, ...]]:
    """Group jobs by config, in the order of the first job of each group."""
    groups: dict[frozenset[tuple[str, str]], list[Job]] = {}
    for job in jobs:
        groups.setdefault(config(job), []).append(job)
    return [tuple(group) for group in groups.values()]


def job_lines(lines: Sequence[JobLine], curves: JobCurves, metric: str, axis: Axis) -> Iterator[Curve]:
    """Yield the lines of one metric; for several seeds the mean, with a band from min to max."""
    sparse = metric.startswith("validation/")
    for line in lines:
        measured = [(job, series) for job in line.jobs if (series := curves.get((job.id, metric))) is not None]
        placed = [(series, places) for job, series in measured if (places := _places(job, series, curves, axis))]
        if not placed:
            continue
        if len(line.jobs) > 1:
            yield Curve(line.name, _band(placed), line.colour, sparse=sparse, band=True)
        else:
            [(series, places)] = placed
            yield Curve(line.name, series.at(places), line.colour, sparse=sparse)


def _places(job: Job, series: Buckets, curves: JobCurves, axis: Axis) -> list[int]:
    """The end of each bucket on the axis."""
    if axis == "time" and job.started_at is not None:
        return [int((at - job.started_at).total_seconds()) for at in series.ts]
    if axis == "tokens":
        steps, tokens = _tokens(job, curves)
        return [int(at) for at in np.interp(series.last_step, steps, tokens)] if steps else []
    return series.last_step


def _tokens(job: Job, curves: JobCurves) -> tuple[list[int], list[float]]:
    """Steps, and the completion tokens until the end of each."""
    rate, seconds = curves.get((job.id, RATE)), curves.get((job.id, SECONDS))
    if rate is None or seconds is None:
        return [], []
    lasted = dict(zip(seconds.start, seconds.mean, strict=True))
    tokens = [
        (a or 0.0) * (lasted.get(start) or 0.0) * count
        for a, start, count in zip(rate.mean, rate.start, rate.count, strict=True)
    ]
    return rate.last_step, list(accumulate(tokens))


def _band(placed: Sequence[tuple[Buckets, list[int]]]) -> StepSeries:
    """The mean, min and max of several jobs per bucket, at the mean of their places."""
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
    return StepSeries.of(np.nanmean(where, axis=0).astype(int).tolist(), means, low, high)
