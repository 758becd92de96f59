"""Reads that fetch only what is new from the API."""

import numpy as np
import pytest

from calibrl.client import CalibrlError
from calibrl.schemas import JobStatus
from dashboard.charts import figures
from dashboard.charts.series import BUCKETS, COLUMNS, StepSeries
from dashboard.palette import NEUTRAL
from dashboard.reads import live, service
from dashboard.views import chart_look
from tests.support.dashboard.world import World

pytestmark = pytest.mark.integration

NAMES = ("reward/mean", "loss/grad_norm")


@pytest.fixture(autouse=True)
def every_read_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "FRESH", 0.0)


def test_a_tick_asks_for_new_steps_only(world: World) -> None:
    job = world.add()
    world.measure(job, range(1, 301))
    history = live.history(job.id, 1, NAMES)
    history.refresh()
    assert history.curves()["reward/mean"].steps.tolist() == list(range(1, 301))
    world.requests.clear()
    world.measure(job, range(301, 303))
    history.refresh()
    assert history.curves()["reward/mean"].steps.tolist() == list(range(1, 303))
    (request,) = world.requests
    assert "from_step=300" in request  # the last bucket known is read again: it was possibly not full
    assert "width=1" in request


def test_curves_stay_in_the_order_of_the_names(world: World) -> None:
    """The names are the cache key of the history: another order would be another history, without data."""
    job = world.add()
    names = ("reward/mean", "not/reported", "loss/grad_norm")
    history = live.history(job.id, 1, names)
    for step in (1, 2):
        world.measure(job, range(step, step + 1), {"reward/mean": float(step), "loss/grad_norm": 1.0})
        history.refresh()
        curves = history.curves()
        assert tuple(curves) == names
        assert live.history(job.id, 1, tuple(curves)) is history
        assert [len(curve) for curve in curves.values()] == [step, 0, step]


def test_a_long_history_is_read_in_buckets_that_lose_no_spike(world: World) -> None:
    job = world.add()
    world.measure(job, range(1, 1234), {"reward/mean": 1.0})
    world.measure(job, range(1234, 1235), {"reward/mean": 9.0})
    world.measure(job, range(1235, 2001), {"reward/mean": 1.0})
    history = live.history(job.id, 1, NAMES)
    history.refresh()
    series = history.curves()["reward/mean"]
    assert len(series) <= BUCKETS
    assert series.high.max() == 9.0
    assert series.steps[-1] == 2000
    assert len(world.requests) == 1


def test_too_many_buckets_are_read_again(world: World) -> None:
    job = world.add()
    world.measure(job, range(1, BUCKETS), {"reward/mean": 1.0})
    history = live.history(job.id, 1, NAMES)
    history.refresh()
    assert len(history.curves()["reward/mean"]) == BUCKETS - 1
    world.measure(job, range(BUCKETS, BUCKETS + 3), {"reward/mean": 1.0})
    history.refresh()
    assert len(history.curves()["reward/mean"]) == (BUCKETS + 3) // 2 + 1
    assert history.curves()["reward/mean"].steps[-1] == BUCKETS + 2


def test_values_that_are_not_finite_are_gaps(world: World) -> None:
    job = world.add()
    world.measure(job, range(38, 42))
    history = live.history(job.id, 1, NAMES)
    history.refresh()
    assert np.isnan(history.curves()["loss/grad_norm"].values).tolist() == [False, False, True, False]
    assert history.curves()["loss/grad_norm"].steps.tolist() == [38, 39, 40, 41]


def test_steps_that_an_attempt_took_back_are_forgotten(world: World) -> None:
    job = world.add()
    world.measure(job, range(1, 31), {"reward/mean": 1.0})
    world.spread(job, range(1, 31))
    history, histogram = live.history(job.id, 1, NAMES), live.histogram(job.id, 1, "rareness")
    history.refresh()
    histogram.refresh()
    world.rewind(job, 20)
    world.measure(job, range(21, 24), {"reward/mean": 2.0})
    world.spread(job, range(21, 24))
    history.refresh()
    histogram.refresh()
    series = history.curves()["reward/mean"]
    assert series.steps.tolist() == list(range(1, 24))
    assert series.values.tolist() == [1.0] * 20 + [2.0] * 3
    assert len(histogram.columns()) == 23


def test_a_histogram_is_followed_in_bounded_columns(world: World) -> None:
    job = world.add()
    world.spread(job, range(1, COLUMNS))
    histogram = live.histogram(job.id, 1, "rareness")
    histogram.refresh()
    assert (histogram.columns().width, len(histogram.columns())) == (1, COLUMNS - 1)
    world.spread(job, range(COLUMNS, COLUMNS + 4))
    histogram.refresh()
    assert (histogram.columns().width, len(histogram.columns())) == (2, COLUMNS // 2 + 2)


def test_viewers_share_a_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "FRESH", 60.0)
    job = world.add()
    world.measure(job, range(1, 4))
    for _ in range(5):
        live.history(job.id, 1, NAMES).refresh()
    assert len(world.requests) == 1


def test_viewers_share_a_figure_until_there_is_more(world: World) -> None:
    job = world.add()
    world.measure(job, range(1, 101), {"reward/mean": 1.0, "loss/grad_norm": 2.0})
    world.spread(job, range(1, 101))

    def drawn() -> list[figures.ChartFigure]:
        history, histogram = live.history(job.id, 1, NAMES), live.histogram(job.id, 1, "rareness")
        history.refresh()
        histogram.refresh()
        lines = [figures.Curve(name, history.curves()[name], NEUTRAL) for name in NAMES]
        return [
            *(figures.curves([line], unit="x") for line in lines),
            figures.stacked([("all", line.series, NEUTRAL) for line in lines], unit="x", shares=False),
            figures.heat_map(histogram.columns(), colour=NEUTRAL, unit="x"),
        ]

    first, second = drawn(), drawn()
    assert all(one is other for one, other in zip(first, second, strict=True))
    world.measure(job, range(101, 102), {"reward/mean": 1.0})
    world.spread(job, range(101, 102))
    third = drawn()
    changed = [one is not other for one, other in zip(second, third, strict=True)]
    assert changed == [True, False, True, True]
    assert third[0].data[-1]["x"][-1] == 101


def test_a_comparison_reads_new_values_of_running_jobs_only(world: World) -> None:
    ended, running = world.add(status=JobStatus.SUCCEEDED), world.add()
    world.measure(ended, range(1, 51), {"reward/mean": 1.0})
    world.measure(running, range(1, 101), {"reward/mean": 1.0})
    comparison = live.compared_curves([ended, running], NAMES)
    comparison.refresh()
    world.requests.clear()
    world.measure(running, range(101, 103), {"reward/mean": 2.0})
    comparison.refresh()
    (request,) = world.requests
    assert "from_step=100" in request and "width=1" in request
    steps = {job: curve.last_step for (job, name), curve in comparison.curves().items() if name == "reward/mean"}
    assert steps == {ended.id: list(range(1, 51)), running.id: list(range(1, 103))}


def test_a_comparison_forgets_steps_that_a_job_took_back(world: World) -> None:
    first, second = world.add(), world.add()
    world.measure(first, range(1, 11), {"reward/mean": 1.0})
    world.measure(second, range(1, 101), {"reward/mean": 1.0})
    comparison = live.compared_curves([first, second], NAMES)
    comparison.refresh()
    world.rewind(first, 4)
    comparison.refresh()
    steps = {job: curve.last_step[-1] for (job, name), curve in comparison.curves().items() if name == "reward/mean"}
    assert steps == {first.id: 4, second.id: 100}


def test_a_comparison_restarts_with_another_attempt(world: World) -> None:
    jobs = [world.add(status=JobStatus.SUCCEEDED) for _ in range(2)]
    for job in jobs:
        world.measure(job, range(1, 11), {"reward/mean": 1.0})
    live.compared_curves(jobs, NAMES).refresh()
    world.measure(jobs[0], range(11, 21), {"reward/mean": 2.0})
    again = live.compared_curves([world.change(jobs[0], attempt=2), jobs[1]], NAMES)
    again.refresh()
    assert again.curves()[jobs[0].id, "reward/mean"].last_step[-1] == 20


def test_a_comparison_of_ended_jobs_is_read_once(world: World) -> None:
    jobs = [world.add(status=JobStatus.SUCCEEDED) for _ in range(2)]
    for job in jobs:
        world.measure(job, range(1, 11), {"reward/mean": 1.0})
    for _ in range(3):
        live.compared_curves(jobs, NAMES).refresh()
    assert len(world.requests) == 1


def test_a_failed_read_keeps_earlier_values(world: World) -> None:
    job = world.add()
    world.measure(job, range(1, 4))
    history = live.history(job.id, 1, NAMES)
    history.refresh()
    world.fails = True
    with pytest.raises(CalibrlError):
        history.refresh()
    assert len(history.curves()["reward/mean"]) == 3


def test_pace_is_computed_from_the_last_steps(world: World) -> None:
    job = world.add()
    history = live.history(job.id, 1, (live.STEP_SECONDS,))
    assert history.seconds_per_step(None) is None
    world.measure(job, range(1, 101))
    history.refresh()
    assert history.seconds_per_step(None) == 1.0


def test_only_the_end_of_a_log_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LOG_TAIL", 10)
    monkeypatch.setattr(live, "LOG_KEPT", 21)
    job = world.add()
    world.log(job, b"first line\nlast line\n")
    log = live.log(job.id)
    log.refresh()
    assert (log.shown, log.text, log.cut) == ("last line\n", "first line\nlast line\n", True)
    world.log(job, b"more\n")
    log.refresh()
    assert (log.shown, log.text) == ("line\nmore\n", " line\nlast line\nmore\n")
    assert b"".join(service.client().whole_log(job.id)) == b"first line\nlast line\nmore\n"


def test_groups_are_listed_newest_step_first(world: World) -> None:
    job = world.add()
    for step in (1, 10, 10):
        world.keep_sample(job, step, "text")
    samples = live.samples(job.id, 1)
    samples.refresh()
    assert [(step, len(groups)) for step, groups in samples.by_step().items()] == [(10, 2), (1, 1)]


def test_columns_that_are_drawn_do_not_change_under_another_viewers_read(world: World) -> None:
    """One viewer draws while another's refresh adds columns."""
    job = world.add()
    world.spread(job, range(1, 4))
    histogram = live.histogram(job.id, 1, "rareness")
    histogram.refresh()
    drawn = histogram.columns()
    world.spread(job, range(4, 8))
    histogram.refresh()
    assert (len(drawn), len(histogram.columns())) == (3, 7)
    assert drawn.shares()[0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("axis", ["time", "tokens"])
def test_curves_on_other_axes_stay_until_there_is_more(
    world: World, monkeypatch: pytest.MonkeyPatch, axis: str
) -> None:
    monkeypatch.setattr(chart_look, "axis", lambda: axis)
    job = world.add()
    world.run(job, (0, None))
    names = ("reward/mean", *chart_look.TOKENS)
    world.measure(job, range(1, 5), {"reward/mean": 1.0} | dict.fromkeys(chart_look.TOKENS, 2.0))

    def curve() -> StepSeries:
        history = live.history(job.id, 1, names)
        history.refresh()
        return chart_look.on_axis(job, history)["reward/mean"]

    first = curve()
    assert curve() is first and first.steps.tolist() == ([1, 2, 3, 4] if axis == "time" else [4, 8, 12, 16])
    world.measure(job, range(5, 6), {"reward/mean": 1.0} | dict.fromkeys(chart_look.TOKENS, 2.0))
    assert len(curve()) == 5
