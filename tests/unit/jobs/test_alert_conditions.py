"""Conditions of alert rules on sequences of values that are judged by hand."""

import math
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from calibrl.schemas import HealthAlert, NewAlertRule
from calibrl.schemas.alert_rules import MetricCondition
from calibrl.schemas.events import surviving
from jobs.alerts.conditions import ConditionWatch
from jobs.alerts.matching import applies
from jobs.models import AlertRule

NAN, INF = math.nan, math.inf


def watch(**condition: Any) -> ConditionWatch:
    return ConditionWatch(TypeAdapter(MetricCondition).validate_python({"metric": "m", **condition}))


@pytest.mark.parametrize(
    ("condition", "values", "found"),
    [
        # Two values in a row below 0.5 fire, and two that are not below it clear. NaN changes nothing.
        (
            {"type": "below", "limit": 0.5, "steps": 2},
            [0.4, 0.5, 0.4, NAN, 0.3, 0.6, 0.2, 0.6, 0.7],
            [None, None, None, None, True, None, None, None, False],
        ),
        ({"type": "below", "limit": 0.5}, [0.6, 0.4, 0.5, -INF], [False, True, False, True]),
        ({"type": "above", "limit": 1, "steps": 3}, [2, 2, 1, 2, 2, INF], [None, None, None, None, None, True]),
        ({"type": "not_finite"}, [1, NAN, INF, -INF, 0], [False, True, True, True, False]),
        # Best 0.6 from the second value on: 0.49 is 0.11 worse, 0.51 only 0.09.
        (
            {"type": "worse_than_best", "by": 0.1},
            [0.5, 0.6, 0.49, 0.51, NAN, 0.7, 0.59],
            [False, False, True, False, None, False, True],
        ),
        (
            {"type": "worse_than_best", "by": 0.1, "best": "lowest", "steps": 2},
            [2.0, 1.0, 1.2, 1.15, 1.05, 0.5, 0.5],
            [None, False, None, True, None, False, False],
        ),
    ],
)
def test_a_condition_holds_after_so_many_values(
    condition: dict[str, Any], values: list[float], found: list[bool | None]
) -> None:
    watched = watch(**condition)
    assert [watched.observe(step, value) for step, value in enumerate(values, 1)] == found


def test_the_text_names_the_limit_and_the_values() -> None:
    low = watch(type="below", limit=0.05, steps=2)
    low.observe(1, 0.04), low.observe(2, 0.03125)
    assert low.text(True) == "m was below 0.05 for 2 values in a row (last value 0.03125)"
    assert low.text(False) == "m was not below 0.05 for 2 values in a row (last value 0.03125)"
    worse = watch(type="worse_than_best", by=0.1)
    worse.observe(3, 0.5), worse.observe(4, 0.25)
    assert worse.text(True) == (
        "m was worse than its best value by more than 0.1 (last value 0.25, best 0.5 at step 3)"
    )


@pytest.mark.parametrize(
    ("named", "labels", "concerned"),
    [
        (None, {}, True),
        ("sweep-*", {}, True),
        ("Sweep-*", {}, False),
        ("sweep-?", {}, False),
        (None, {"team": "a"}, True),
        (None, {"team": "a", "x": "1"}, False),
        ("sweep-*", {"team": "b"}, False),
    ],
)
def test_a_rule_concerns_jobs_by_name_and_labels(named: str | None, labels: dict[str, str], concerned: bool) -> None:
    rule = AlertRule(job_names=named, labels=labels)
    assert applies(rule, "sweep-12", {"team": "a", "y": "2"}) is concerned


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "entropy-collapse"},
        {"name": "Low"},
        {"condition": {"type": "below", "metric": "m", "limit": math.inf}},
        {"condition": {"type": "below", "metric": "m", "limit": 1, "steps": 1001}},
        {"condition": {"type": "no_progress", "minutes": 0}},
        {"condition": {"type": "rises", "metric": "m"}},
        {"job_names": ""},
        {"webhook": "x"},
    ],
)
def test_a_rule_out_of_bounds_is_refused(wrong: dict[str, Any]) -> None:
    right = {"name": "low", "condition": {"type": "below", "metric": "m", "limit": 1}}
    assert NewAlertRule.model_validate(right)
    with pytest.raises(ValidationError):
        NewAlertRule.model_validate(right | wrong)


def test_an_alert_at_an_earlier_step_takes_back_later_ones() -> None:
    def alert(rule: str, state: Any, step: int) -> HealthAlert:
        return HealthAlert(rule=rule, state=state, step=step, message="", suggestion="")

    kept = surviving([alert("a", "fired", 5), alert("b", "fired", 9), alert("a", "cleared", 8), alert("a", "fired", 6)])
    assert [(one.rule, one.step) for one in kept] == [("a", 5), ("a", 6), ("b", 9)]
