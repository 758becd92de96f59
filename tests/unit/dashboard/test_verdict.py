"""The meaning of a paired difference, in words."""

import pytest

from calibrl.schemas import PairedDifference
from dashboard.views.evaluation_table import verdict


@pytest.mark.parametrize(
    ("difference", "low", "high", "text"),
    [
        (0.1, 0.05, 0.2, "b is better (95 %)"),
        (-0.1, -0.2, -0.05, "a is better (95 %)"),
        (0.1, -0.01, 0.2, "not significant"),
    ],
)
def test_a_verdict_names_the_better_model(difference: float, low: float, high: float, text: str) -> None:
    distinguishable = not low <= 0 <= high
    pair = PairedDifference(
        first=0, second=1, difference=difference, low=low, high=high, distinguishable=distinguishable
    )
    assert verdict(pair, "a", "b") == text
