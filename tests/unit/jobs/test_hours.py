"""Seconds of a job by what they bought: they add up, also if the clocks of machines differ."""

from types import SimpleNamespace
from typing import Any

import pytest

from jobs.insight.hours import split


def attempt(seconds: float, **sums: Any) -> Any:
    """An attempt whose steps took 450 of its seconds."""
    known = {"rows": 5, "before": 110.0, "after": 0.0, "steps": 450.0, "idle": 100.0, "cut": 60.0, "waiting": 75.0}
    return SimpleNamespace(seconds=seconds, **{"number": 1} | known | {"validation": 0.0} | sums)


def test_one_attempt_that_ended_by_itself() -> None:
    spent = split([attempt(600.0, after=20.0, validation=8.0)])
    bought = {"start": 110, "no_advantage": 100, "truncated": 60, "waiting": 75, "learning": 215, "validation": 8}
    assert spent == bought | {"other": 600 - 110 - 450 - 8}  # with the 20 seconds at its end


def test_an_attempt_that_was_lost_bought_only_the_steps_that_are_kept() -> None:
    spent = split([attempt(1000.0, after=400.0), attempt(600.0, after=20.0, number=2)])
    assert spent["start"] == 110
    assert spent["restarts"] == 400 + 110  # after its last kept step, and until the first step of the next
    assert sum(spent.values()) == 1600


@pytest.mark.parametrize(
    ("attempts", "name"),
    [
        ([attempt(50.0, rows=0)], "start"),  # it has just begun
        ([attempt(50.0, rows=0), attempt(70.0, rows=0, number=2)], "restarts"),
        ([attempt(50.0, rows=0, number=3)], "restarts"),  # the attempts before it are not in the period
    ],
)
def test_attempts_without_a_step(attempts: Any, name: str) -> None:
    assert split(attempts) == {name: sum(one.seconds for one in attempts), "other": 0}


def test_parts_never_exceed_the_attempt() -> None:
    """The trainer's clock is 40 s ahead, and its steps seem to take longer than the attempt."""
    spent = split([attempt(400.0, before=150.0, after=-40.0)])
    assert sum(spent.values()) == pytest.approx(400.0)
    assert spent["start"] == pytest.approx(150 * 400 / 600)
    assert min(spent.values()) >= 0
