"""Curves of several jobs in one chart: places on the x axis, and several seeds of one config as one line."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Literal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from calibrl.schemas import AttemptRecord, JobSummary
from dashboard.charts.figures import Curve
from dashboard.charts.series import BUCKETS, StepSeries
from dashboard.reads.live import Buckets
from dashboard.views.spec_diff import flat

Axis = Literal["step", "tokens", "time"]
AXES: dict[Axis, str] = {
    "step": "step",
    "tokens": "completion tokens so far",
    "time": "running time (s), without pauses",
}
# Completion tokens of a step: its tokens per second, multiplied by its seconds.
RATE, SECONDS = "perf/tokens_per_second", "perf/step_seconds"

JobCurves = Mapping[tuple[UUID, str], Buckets]  # by job and metric
Attempts = Mapping[UUID, Sequence[AttemptRecord]]  # by job


@dataclass(frozen=True)
class JobLine:
    """One line of a chart: a job, or several jobs of one config with different seeds."""

    name: str
    colour: str
    jobs: tuple[JobSummary, ...]
    dash: str = "solid"


def _is_seed(field: str) -> bool:
    return field.split(".")[-1] == "seed"


def config(job: JobSummary) -> frozenset[tuple[str, str]]:
    """Return the fields of a job's spec with their values, without seeds, name, labels and notes."""
    naming = ("name", "labels", "notes")
    return frozenset(
        (field, value)
        for field, value in flat(job.fields).items()
        if not _is_seed(field) and field.split(".")[0] not in naming
    )


def seeds(job: JobSummary) -> tuple[str, ...]:
    """Return the seeds in a job's spec."""
    return tuple(value for field, value in sorted(flat(job.fields).items()) if _is_seed(field))


def seed_groups(jobs: Sequence[JobSummary]) -> list[tuple[JobSummary, ...]]:
    """Group jobs of one config whose seeds differ, in the order of the first job of each group.

    Two runs of one seed are in two groups: their mean says nothing about seeds.
    """
    groups: list[list[JobSummary]] = []
    for job in jobs:
        fits = (
            group
            for group in groups
            if config(group[0]) == config(job) and all(seeds(other) != seeds(job) for other in group)
        )
        if (group := next(fits, None)) is not None:
            group.append(job)
        else:
            groups.append([job])
    return [tuple(group) for group in groups]


def group_name(jobs: Sequence[JobSummary]) -> str:
    """Return the name of a group of jobs, with the seeds in which they differ."""
    of_each = zip(*(column for column in zip(*map(seeds, jobs), strict=True) if len(set(column)) > 1), strict=True)
    return f"{jobs[0].name}, seeds {', '.join(map('/'.join, of_each))}"


def job_lines(
    lines: Sequence[JobLine], curves: JobCurves, metric: str, axis: Axis, attempts: Attempts | None = None
) -> Iterator[Curve]:
    """Yield the lines of one metric; for several seeds the mean, with a band from min to max.

    `attempts`: of each job, for the axis of time.
    """
    sparse = metric.startswith("validation/")
    for line in lines:
        measured = [(job, series) for job in line.jobs if (series := curves.get((job.id, metric))) is not None]
        placed = [
            (series, places)
            for job, series in measured
            if (places := places_of(job, series, curves, axis, (attempts or {}).get(job.id, [])))
        ]
        if not placed:
            continue
        if len(line.jobs) > 1:
            yield Curve(line.name, _band(placed), line.colour, line.dash, sparse=sparse, band=True)
        else:
            [(series, places)] = placed
            yield Curve(line.name, series.at(places), line.colour, line.dash, sparse=sparse)


def places_of(
    job: JobSummary, series: Buckets, curves: JobCurves, axis: Axis, attempts: Sequence[AttemptRecord]
) -> Sequence[int]:
    """Return the end of each bucket of a job's curve on the axis; empty if the job lacks what the axis needs."""
    if axis == "time":
        return [int(running_seconds(attempts, at)) for at in series.ts] if attempts else []
    if axis == "tokens":
        steps, tokens = _tokens(job, curves)
        return [int(at) for at in np.interp(series.last_step, steps, tokens)] if steps else []
    return series.last_step


def running_seconds(attempts: Sequence[AttemptRecord], at: datetime) -> float:
    """Return the seconds that a job had run at a time: its attempts up to then, without the pauses between them."""
    ended = [min(attempt.finished_at or at, at) for attempt in attempts]
    lasted = [(end - attempt.started_at).total_seconds() for attempt, end in zip(attempts, ended, strict=True)]
    return sum(max(seconds, 0.0) for seconds in lasted)


def _tokens(job: JobSummary, curves: JobCurves) -> tuple[list[int], list[float]]:
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


def _band(placed: Sequence[tuple[Buckets, Sequence[int]]]) -> StepSeries:
    """The mean, min and max of several jobs at equal places of the axis, each job interpolated between its values."""
    grid = np.unique(np.concatenate([places for _, places in placed]))
    grid = grid[:: -(-len(grid) // BUCKETS)]
    values: NDArray[np.float64] = np.full((len(placed), len(grid)), np.nan)  # [jobs, places]
    lost = np.zeros(len(grid), dtype=np.int64)
    for row, (series, places) in enumerate(placed):
        means = np.asarray(series.mean, dtype=np.float64)
        known, at = np.isfinite(means), np.asarray(places)
        if known.any():
            values[row] = np.interp(grid, at[known], means[known], left=np.nan, right=np.nan)
        np.add.at(lost, np.searchsorted(grid, at, side="right") - 1, series.non_finite)
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # a place without a value stays NaN
        means, low, high = (measure(values, axis=0).tolist() for measure in (np.nanmean, np.nanmin, np.nanmax))
    return StepSeries.of(grid.tolist(), means, low, high, non_finite=lost.tolist())
