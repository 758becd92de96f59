"""Experts of the built-in datasets: right in every style but the two controls, which are wrong in a known way."""

from typing import Literal

import pytest

from calibrl_core import data
from calibrl_core.data.schema import BuiltinData, ExpertStyle
from calibrl_core.verifiers.base import extract_answer, follows_format

ROWS = 48  # more than the kinds of geometry problems
Dataset = Literal["digits", "geometry"]


def answers(builtin: Dataset, experts: ExpertStyle) -> list[tuple[int, int]]:
    """Return per row the truth, and the answer of its expert."""
    found = []
    for example in data.load(BuiltinData(builtin=builtin, experts=experts, rows=ROWS)):
        assert example.expert is not None
        assert follows_format(example.expert)
        found.append((int(example.answer), int(extract_answer(example.expert) or "")))
    return found


@pytest.mark.parametrize("builtin", ["digits", "geometry"])
def test_only_the_controls_are_wrong(builtin: Dataset) -> None:
    styles: tuple[ExpertStyle, ...] = ("mixed", "terse", "wordy")
    for style in styles:
        assert all(truth == answer for truth, answer in answers(builtin, style))
    assert all(answer == truth + 1 for truth, answer in answers(builtin, "wrong"))
    of_others = answers(builtin, "other_row")
    truths = [truth for truth, _ in of_others]
    assert [answer for _, answer in of_others] == [*truths[1:], truths[0]]


def test_each_style_has_its_words() -> None:
    def first_two(style: ExpertStyle) -> list[str | None]:
        return [example.expert for example in data.load(BuiltinData(builtin="digits", experts=style, rows=2))]

    terse = ["<think>9+0=9.</think><answer>9</answer>", "<think>3+9=12.</think><answer>12</answer>"]
    wordy = [
        "<think>On the left I see 9, on the right 0: 9.</think><answer>9</answer>",
        "<think>On the left I see 3, on the right 9: 12.</think><answer>12</answer>",
    ]
    assert first_two("terse") == terse
    assert first_two("wordy") == wordy
    assert first_two("mixed") == [terse[0], wordy[1]]
    assert first_two("wrong")[0] == "<think>9+0=10.</think><answer>10</answer>"
    assert first_two("other_row") == [terse[1], terse[0]]
