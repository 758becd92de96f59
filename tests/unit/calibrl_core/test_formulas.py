"""Formulas over rewards: their values, what is refused, and the reward `multi`."""

import math
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from calibrl_core.verifiers.formula import check, value_of
from calibrl_core.verifiers.registry import Reward
from calibrl_core.verifiers.reward_input import RewardInput
from calibrl_core.verifiers.scorer import Scorer


def reward(**settings: Any) -> Reward:
    return TypeAdapter[Reward](Reward).validate_python(settings)


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("0.8 * a + 0.2 * b", 0.5),
        ("-a + +b / 4", -0.375),
        ("max(a, b, 0.7) - min(a, b)", 0.2),
        ("2 ^ 3 - 7", 1.0),  # as a power: it binds more tightly than the minus
        ("abs(a - b) + floor(1.7) + ceil(1.2)", 3.0),
        ("exp(log(2)) * sqrt(a * 2)", 2.0),
    ],
)
def test_values(formula: str, value: float) -> None:
    check(formula, ["a", "b"])
    assert value_of(formula, {"a": 0.5, "b": 0.5}) == pytest.approx(value)


@pytest.mark.parametrize(
    ("formula", "why"),
    [
        ("a + c", "names 'c'; there are a, b"),
        ("a.real", "has 'a.real'"),
        ("__import__('os')", "has"),
        ("(lambda: a)()", "has"),
        ("a if b else 1", "has 'a if b else 1'"),
        ("[a][0]", "has"),
        ("min(a)", r"has 'min\(a\)'"),
        ("sqrt(a, b)", "has"),
        ("min(*[a, b])", "has"),
        ("max(a, b, key=abs)", "has"),
        ("True", "has"),
        ("'a'", "has"),
        ("1e300", "has"),
        ("a +", "cannot be read"),
        ("a; b", "cannot be read"),
        ("(" * 600, "cannot be read"),
        ("a + " * 300 + "a", "characters"),
        ("a+" * 150 + "a", "parts"),
        ("min", "names 'min'"),
    ],
)
def test_what_is_no_formula_is_refused(formula: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check(formula, ["a", "b"])


@pytest.mark.parametrize("formula", ["1 / a", "log(a)", "sqrt(a - 1)", "(a - 1) ^ 0.5", "exp(1000)", "9 ^ 9 ^ 9"])
def test_a_formula_without_a_value_is_an_error(formula: str) -> None:
    check(formula, ["a"])
    with pytest.raises((ArithmeticError, ValueError)):
        value_of(formula, {"a": 0.0})


def test_multi_computes_its_score_from_its_parts() -> None:
    parts = {"right": {"type": "exact"}, "neat": {"type": "format"}}
    with Scorer([reward(type="multi", formula="0.75 * right + 0.25 * neat", rewards=parts)]) as scorer:
        texts = ["<think>a</think><answer>7</answer>", "<answer>7</answer>", "<think>a</think><answer>8</answer>"]
        scores = scorer.score_all(texts, ["7"] * 3)
    assert [score.by_verifier for score in scores] == [{"multi": 1.0}, {"multi": 0.75}, {"multi": 0.25}]
    assert [(score.passed, score.strict) for score in scores] == [(True, True), (True, False), (False, False)]


def test_the_range_of_multi_is_scaled_to_0_to_1() -> None:
    settings = {"formula": "4 * right - 1", "rewards": {"right": {"type": "exact"}}, "name": "scaled"}
    with Scorer([reward(type="multi", range=(-1, 1), **settings)]) as scorer:
        scores = scorer.score_all(["<answer>7</answer>", "<answer>8</answer>"], ["7"] * 2)
    assert [score.by_verifier for score in scores] == [{"scaled": 1.0}, {"scaled": 0.0}]  # 3, which is cut to 1; -1


def test_a_formula_that_fails_is_a_missing_verdict() -> None:
    with Scorer([reward(type="multi", formula="1 / right", rewards={"right": {"type": "exact"}})]) as scorer:
        (score,) = scorer.score_all(["<answer>8</answer>"], ["7"])
    assert (score.failed, score.failure) == (("multi",), "multi: float division by zero")


def test_a_missing_part_is_a_missing_verdict() -> None:
    column = {"type": "string_check", "reference": "{{ item.answer }}"}
    with Scorer([reward(type="multi", formula="max(a, b)", rewards={"a": {"type": "exact"}, "b": column})]) as scorer:
        (score,) = scorer.grade([RewardInput("<answer>7</answer>", "7")])
    assert (score.failed, score.reward) == (("multi",), 0.0)
    assert score.failure == "multi: string_check: item.answer: there is no 'answer'"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"formula": "b"}, "names 'b'"),
        ({"formula": "a", "range": (1, 1)}, "range: the first number must be below"),
        ({"formula": "a", "rewards": {"a": {"type": "exact", "weight": 2}}}, r"rewards\.a\.weight: has no effect"),
        ({"formula": "a", "rewards": {"a": {"type": "exact", "on_failure": "stop"}}}, r"rewards\.a\.on_failure"),
        ({"formula": "a", "rewards": {"a": {"type": "multi", "formula": "1", "rewards": {}}}}, "multi"),
    ],
)
def test_settings_of_multi_without_effect_are_refused(settings: Any, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        reward(**{"type": "multi", "rewards": {"a": {"type": "exact"}}} | settings)


@pytest.mark.parametrize(
    ("part", "own", "policy"),
    [
        ({"type": "exact"}, {}, "zero"),
        ({"type": "http", "url": "https://rewards.example"}, {}, "drop_group"),
        ({"type": "http", "url": "https://rewards.example"}, {"on_failure": "zero"}, "zero"),
    ],
)
def test_a_silent_service_drops_the_group_of_a_formula(part: Any, own: Any, policy: str) -> None:
    assert reward(type="multi", formula="a", rewards={"a": part}, **own).on_failure == policy
    assert reward(type="multi", formula="a", rewards={"a": reward(**part)}, **own).on_failure == policy


def test_a_stored_multi_can_be_read_again() -> None:
    parts = {"a": {"type": "format"}, "b": {"type": "math"}}
    one = reward(type="multi", formula="a * b", rewards=parts)
    assert reward(**one.model_dump(mode="json")) == one
    assert math.isclose(one.combine({"a": 0.5, "b": 0.5}), 0.25)
