"""Paired differences, by numbers worked out by hand."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from calibrl_core.evaluation.bootstrap import paired_differences


def right(*shares: Any) -> NDArray[Any]:
    """A hundred prompts' accuracies: so many of each value."""
    return np.concatenate([np.full(count, value, dtype=float) for value, count in shares])


def test_a_difference_that_is_distinguishable() -> None:
    """40 prompts of 100 are gained and none is lost: 0.4, standard error sqrt(0.4 * 0.6 / 100) = 0.049."""
    first, second = right((1, 20), (0, 80)), right((1, 60), (0, 40))
    (found,) = paired_differences([first, second], seed=0)
    assert (found.first, found.second) == (0, 1)
    assert found.difference == pytest.approx(0.4)
    assert (found.low, found.high) == pytest.approx((0.4 - 1.96 * 0.049, 0.4 + 1.96 * 0.049), abs=0.012)
    assert found.distinguishable
    (back,) = paired_differences([second, first], seed=0)
    assert (back.difference, back.low, back.high) == pytest.approx((-0.4, -found.high, -found.low))


def test_a_difference_that_is_not() -> None:
    """52 prompts are gained, 48 lost: 0.04, standard error sqrt(1 - 0.04^2) / 10 = 0.1."""
    (found,) = paired_differences([right((0, 52), (1, 48)), right((1, 52), (0, 48))], seed=0)
    assert found.difference == pytest.approx(0.04)
    assert (found.low, found.high) == pytest.approx((0.04 - 0.196, 0.04 + 0.196), abs=0.025)
    assert not found.distinguishable


def test_pairing_separates_models_whose_intervals_overlap() -> None:
    """Prompts differ much, models little but everywhere: each accuracy's own interval is far wider than 0.1."""
    first = right((0.0, 50), (0.9, 50))
    (found,) = paired_differences([first, first + 0.1], seed=0)
    assert (found.difference, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.distinguishable


def test_every_two_and_the_same_seed_the_same_numbers() -> None:
    models = [right((0, 30), (1, 70)), right((0.5, 100)), right((1, 40), (0, 60))]
    found = paired_differences(models, seed=3)
    assert [(one.first, one.second) for one in found] == [(0, 1), (0, 2), (1, 2)]
    assert found == paired_differences(models, seed=3)
    assert found != paired_differences(models, seed=4)
    assert paired_differences([models[0], models[2]], seed=3)[0].low == pytest.approx(found[1].low)
    assert paired_differences(models[:1], seed=0) == []
    (same,) = paired_differences([models[0], models[0]], seed=0)
    assert (same.low, same.high, same.distinguishable) == (0.0, 0.0, False)
