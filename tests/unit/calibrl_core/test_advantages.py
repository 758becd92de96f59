"""Advantages by numbers worked out by hand in float64."""

import math
from typing import Any

import pytest
import torch

from calibrl_core.algorithms import GRPO
from calibrl_core.step.advantages import step_advantages

REWARDS = torch.tensor([[1.0, 0.0, 0.5], [2.0, 2.0, 2.0]], dtype=torch.float64)


def found(
    kind: Any, rewards: torch.Tensor = REWARDS, *, normalise_by_std: bool = False, **more: Any
) -> list[list[float]]:
    advantages: list[list[float]] = step_advantages(rewards, kind, normalise_by_std=normalise_by_std, **more).tolist()
    return advantages


def test_leave_one_out_compares_with_the_others() -> None:
    # 1 - (0 + 0.5) / 2, 0 - (1 + 0.5) / 2, 0.5 - (1 + 0) / 2; equal rewards teach nothing.
    assert found("leave_one_out") == [pytest.approx([0.75, -0.75, 0.0]), [0, 0, 0]]
    scaled = found("leave_one_out", normalise_by_std=True)
    assert scaled[0] == pytest.approx([1.5, -1.5, 0.0], rel=1e-5)  # the group's std is 0.5


def test_batch_compares_with_the_whole_step() -> None:
    # Mean 1.25; squares 0.0625 + 1.5625 + 0.5625 + 3 x 0.5625 = 3.875, over 5.
    std = math.sqrt(3.875 / 5) + 1e-6
    expected = [[-0.25 / std, -1.25 / std, -0.75 / std], [0.75 / std] * 3]
    assert found("batch") == [pytest.approx(row) for row in expected]
    assert found("batch", normalise_by_std=True) == found("batch")


def test_group_batch_divides_by_the_spread_of_the_step() -> None:
    # 0.5, -0.5, 0 and three times 0: squares 0.5, over 5.
    std = math.sqrt(0.1) + 1e-6
    assert found("group_batch") == [pytest.approx([0.5 / std, -0.5 / std, 0]), [0, 0, 0]]


def test_equal_rewards_in_the_whole_step_teach_nothing() -> None:
    equal = torch.full((3, 4), 0.1, dtype=torch.float64)  # three times 0.1 is not 0.3 in binary
    assert all(not any(row) for kind in ("batch", "group_batch", "group") for row in found(kind, equal))


def test_the_step_is_that_of_all_processes() -> None:
    """This process has the first group, another the second: its sums are added."""
    others = iter([[3, 6.0], [3 * 0.75**2]])
    first = found(
        "batch", REWARDS[:1], sum_over=lambda own: [one + other for one, other in zip(own, next(others), strict=True)]
    )
    assert first[0] == pytest.approx(found("batch")[0])


def test_bound_of_the_advantage() -> None:
    assert GRPO(advantages="leave_one_out").max_abs_advantage(4, 1.5) == 1.5
    assert GRPO(advantages="batch").max_abs_advantage(4, 1.5) == 1.5  # (4 - 1) / sqrt(4)
