"""Several jobs' curves over one another: axes, and seeds of one config as one line."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from calibrl.schemas import AttemptRecord, Job, JobStatus
from dashboard.reads.live import Buckets
from dashboard.views.compare_curves import (
    RATE,
    SECONDS,
    JobCurves,
    JobLine,
    config,
    group_name,
    job_lines,
    running_seconds,
    seed_groups,
)

BEGAN = datetime(2026, 11, 1, tzinfo=UTC)


def bucketed(job: Job, name: str, values: list[float | None], *, first: int = 1, count: int = 1) -> JobCurves:
    steps = list(range(first, first + len(values)))
    times = [BEGAN + timedelta(seconds=10 * step) for step in steps]
    counts, lost = [count] * len(values), [int(value is None) for value in values]
    return {(job.id, name): Buckets(steps, steps, steps, times, counts, lost, values, values, values, values)}


def together(*curves: JobCurves) -> JobCurves:
    return {key: buckets for each in curves for key, buckets in each.items()}


def seeds(*numbers: int, **changes: Any) -> tuple[Job, ...]:
    """Return running jobs that differ in their seeds and names."""
    spec = {"kind": "train", "algorithm": {"type": "grpo"}, "labels": {}, "model": {"builtin": "tiny-vlm"}} | changes
    return tuple(
        Job(
            id=uuid4(), name=f"run-{seed}", kind="train", project="default", user="user", priority="normal", labels={},
            gpus=0, status=JobStatus.RUNNING, reason=None, message=None, step=0, steps_total=280, attempt=1,
            depends_on=[], created_at=BEGAN, started_at=BEGAN, finished_at=None,
            spec={}, fields=spec | {"name": f"run-{seed}", "seed": seed}, result=None,
        )
        for seed in numbers
    )  # fmt: skip


def ran(*parts: tuple[float, float | None]) -> list[AttemptRecord]:
    """Return attempts from start to end, in seconds after BEGAN."""
    return [
        AttemptRecord(
            number=number,
            worker="machine-1",
            started_at=BEGAN + timedelta(seconds=begin),
            finished_at=None if end is None else BEGAN + timedelta(seconds=end),
            first_step=0,
            record=None,
        )
        for number, (begin, end) in enumerate(parts, 1)
    ]


def test_jobs_of_one_config_are_grouped_if_their_seeds_differ() -> None:
    first, second, again = seeds(1, 2, 1)
    (other,) = seeds(1, algorithm={"type": "calibrl"})
    assert config(first) == config(second) != config(other)
    assert seed_groups([first, other, again, second]) == [(first, second), (other,), (again,)]
    assert group_name((first, second)) == "run-1, seeds 1, 2"


def test_pauses_do_not_count_as_running_time() -> None:
    attempts = ran((0, 40), (1040, 1080), (2000, None))
    at = [running_seconds(attempts, BEGAN + timedelta(seconds=second)) for second in (10, 40, 500, 1050, 1500, 2007)]
    assert at == [10, 40, 40, 50, 80, 87]


def test_a_mean_over_seeds_never_runs_backwards() -> None:
    """One job was paused for 1000 s after step 3, the other ran on."""
    first, second = seeds(1, 2)
    values: list[float | None] = [float(step) for step in range(1, 7)]
    name = "reward/mean"
    found = together(bucketed(first, name, values), bucketed(second, name, values))
    for place in range(3, 6):
        found[first.id, name].ts[place] += timedelta(seconds=1000)
    attempts = {first.id: ran((0, 35), (1035, None)), second.id: ran((0, None))}
    [curve] = job_lines([JobLine("both", "#000000", (first, second))], found, name, "time", attempts)
    assert curve.series.steps.tolist() == [10, 20, 30, 40, 50, 60]
    assert curve.series.values.tolist() == values


def test_seeds_with_other_places_are_averaged_at_equal_places() -> None:
    """The second job has used twice as many tokens at each step."""
    first, second = seeds(1, 2)
    found = together(
        *(bucketed(job, "reward/mean", [0.0, 1.0]) for job in (first, second)),
        *(bucketed(job, RATE, [rate] * 2) for job, rate in ((first, 10.0), (second, 20.0))),
        *(bucketed(job, SECONDS, [1.0] * 2) for job in (first, second)),
    )
    [curve] = job_lines([JobLine("both", "#000000", (first, second))], found, "reward/mean", "tokens")
    assert curve.series.steps.tolist() == [10, 20, 40]
    assert curve.series.values.tolist() == [0.0, 0.5, 1.0]  # at 20 tokens: 1.0 and 0.0


def test_the_mean_over_seeds_has_a_mark_where_a_seed_has_nan() -> None:
    first, second = seeds(1, 2)
    found = together(bucketed(first, "reward/mean", [0.0, None]), bucketed(second, "reward/mean", [0.0, 1.0]))
    [curve] = job_lines([JobLine("both", "#000000", (first, second))], found, "reward/mean", "step")
    assert curve.series.non_finite.tolist() == [0, 1]


def test_seeds_are_drawn_as_their_mean_between_min_and_max() -> None:
    first, second = seeds(1, 2)
    found = together(
        bucketed(first, "reward/mean", [0.0, 1.0, None]), bucketed(second, "reward/mean", [0.5, 0.2, 0.4, 0.6])
    )
    [curve] = job_lines([JobLine("both", "#000000", (first, second))], found, "reward/mean", "step")
    assert curve.band
    assert curve.series.steps.tolist() == [1, 2, 3, 4]
    assert curve.series.values.tolist() == pytest.approx([0.25, 0.6, 0.4, 0.6])
    assert curve.series.low.tolist() == [0.0, 0.2, 0.4, 0.6]
    assert curve.series.high.tolist() == [0.5, 1.0, 0.4, 0.6]


def test_x_positions_by_step_time_and_tokens() -> None:
    (job,) = seeds(1)
    line = [JobLine("one", "#000000", (job,))]
    found = together(
        bucketed(job, "reward/mean", [0.1, 0.2, 0.3]),
        bucketed(job, RATE, [100.0, 100.0, 50.0]),
        bucketed(job, SECONDS, [2.0, 1.0, 4.0]),
    )
    by = {
        axis: next(job_lines(line, found, "reward/mean", axis, {job.id: ran((0, None))})).series.steps.tolist()
        for axis in ("step", "time", "tokens")
    }
    assert by == {"step": [1, 2, 3], "time": [10, 20, 30], "tokens": [200, 300, 500]}


def test_a_job_without_throughput_has_no_line_by_tokens() -> None:
    (job,) = seeds(1)
    found = together(bucketed(job, "reward/mean", [0.1, 0.2]))
    assert [*job_lines([JobLine("one", "#000000", (job,))], found, "reward/mean", "tokens")] == []


def test_a_metric_of_some_seeds_is_drawn_from_these_seeds() -> None:
    first, second = seeds(1, 2)
    found = together(bucketed(first, "expert/gap_mean", [1.0, 2.0]))
    [curve] = job_lines([JobLine("both", "#000000", (first, second))], found, "expert/gap_mean", "step")
    assert np.array_equal(curve.series.low, curve.series.high)
