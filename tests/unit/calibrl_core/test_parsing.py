"""Truths that look like mathematics and cannot be parsed, with `math` in this process."""

from collections.abc import Iterable
from typing import Any

import pytest

from calibrl_core.verifiers.base import Verdict
from calibrl_core.verifiers.math import MathReward
from calibrl_core.verifiers.parsing import unparsed
from calibrl_core.verifiers.pool import VerdictRequest


class HerePool:
    """Judges in this process."""

    def judge(self, requests: Iterable[VerdictRequest]) -> dict[VerdictRequest, Verdict]:
        return {one: Verdict(MathReward().judge(one.text, one.truth)) for one in requests}


def found(*truths: str) -> set[str]:
    pool: Any = HerePool()
    return unparsed(truths, pool)


@pytest.mark.parametrize("truth", ["\\frac{1}{", "x ^ ^ 2", "(((", "a >< b"])
def test_a_broken_expression_is_not_parsed(truth: str) -> None:
    assert found(truth, "2\\sqrt{3}") == {truth}


@pytest.mark.parametrize(
    "truth",
    ["2\\sqrt{3}", "\\pm 3", "x=3, y=4", "(-\\infty,3]", "\\angle A = 2x", "P(5,-1)", "x>2 or x<-1", "7", "(B)", "yes"],
)
def test_an_answer_of_every_kind_is_read(truth: str) -> None:
    assert found(truth) == set()
