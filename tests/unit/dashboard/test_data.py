"""Reads that fetch only what is new, against a service made by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from calibrl.client import CalibrlError
from dashboard import data

if TYPE_CHECKING:
    from tests.unit.dashboard.conftest import World

NAMES = ("reward/mean", "loss/grad_norm")


@pytest.fixture(autouse=True)
def every_read_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "FRESH", 0.0)


def test_a_tick_asks_for_new_steps_only(world: World) -> None:
    job = world.add()
    world.measure(job, range(1, 1501))
    history = data.history(job.id, 1, NAMES)
    history.refresh()
    assert len(history.series("reward/mean")) == 1500
    world.requests.clear()
    world.measure(job, range(1501, 1503))
    history.refresh()
    assert history.series("reward/mean").steps.tolist()[-2:] == [1501, 1502]
    assert len(history.series("reward/mean")) == 1502
    (request,) = world.requests
    assert "after_step=1499" in request  # the last step known is read again, to see that it still stands


def test_values_that_are_not_finite_are_gaps(world: World) -> None:
    job = world.add()
    world.measure(job, range(38, 42))
    history = data.history(job.id, 1, NAMES)
    history.refresh()
    assert history.series("loss/grad_norm").not_finite == 1
    assert history.series("loss/grad_norm").steps.tolist() == [38, 39, 40, 41]


def test_steps_that_an_attempt_took_back_are_forgotten(world: World) -> None:
    job = world.add()
    world.measure(job, range(1, 31), {"reward/mean": 1.0})
    history, histogram = data.history(job.id, 1, NAMES), data.histogram(job.id, 1, "rareness")
    history.refresh()
    histogram.refresh()
    del world.metrics[job.id][20:], world.histograms[job.id][40:]
    world.measure(job, range(21, 24), {"reward/mean": 2.0})
    history.refresh()
    histogram.refresh()
    series = history.series("reward/mean")
    assert series.steps.tolist() == list(range(1, 24))
    assert series.values.tolist() == [1.0] * 20 + [2.0] * 3
    assert len(histogram.columns) == 23


def test_viewers_share_a_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "FRESH", 60.0)
    job = world.add()
    world.measure(job, range(1, 4))
    for _ in range(5):
        data.history(job.id, 1, NAMES).refresh()
    assert len(world.requests) == 1


def test_a_failed_read_keeps_what_was_read_before(world: World) -> None:
    job = world.add()
    world.measure(job, range(1, 4))
    history = data.history(job.id, 1, NAMES)
    history.refresh()
    del world.jobs[job.id]
    with pytest.raises(CalibrlError):
        history.refresh()
    assert len(history.series("reward/mean")) == 3


def test_pace_comes_from_the_last_rows(world: World) -> None:
    job = world.add()
    history = data.history(job.id, 1, NAMES)
    assert history.seconds_a_step is None
    world.measure(job, range(1, 101))
    history.refresh()
    assert history.seconds_a_step == 1.0


def test_only_the_end_of_a_log_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "LOG_TAIL", 10)
    job = world.add()
    world.logs[job.id] = b"first line\nlast line\n"
    log = data.log(job.id)
    log.refresh()
    assert (log.text, log.cut) == ("last line\n", True)
    world.logs[job.id] += b"more\n"
    log.refresh()
    assert log.text == "line\nmore\n"
    assert data.whole_log(job.id) == "first line\nlast line\nmore\n"


def test_groups_are_listed_newest_step_first(world: World) -> None:
    job = world.add()
    for step in (1, 10, 10):
        world.keep_sample(job, step, "text")
    samples = data.samples(job.id, 1)
    samples.refresh()
    assert [(step, len(groups)) for step, groups in samples.by_step().items()] == [(10, 2), (1, 1)]
