"""Advantages, aggregation, data order, learning rate: small functions with hand-derived answers."""

from typing import get_args

import pytest
import torch

from calibrl_core.algorithms.base import Aggregation
from calibrl_core.settings.optimizer import OptimizerSettings
from calibrl_core.step.advantages import group_advantages
from calibrl_core.step.optimizer import learning_rate
from calibrl_core.step.token_weights import token_weights


def test_advantages() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.1] * 4], dtype=torch.float64)
    assert group_advantages(rewards, normalise_by_std=False).tolist() == [[0.75, -0.25, -0.25, -0.25], [0.0] * 4]
    # unbiased standard deviation of 1, 0, 0, 0 is 0.5
    normalised = group_advantages(rewards, normalise_by_std=True)
    assert normalised[0].tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-5)
    assert normalised[1].tolist() == [0.0] * 4


def test_equal_rewards_have_no_advantage_however_the_mean_rounds() -> None:
    rewards = torch.full((1, 10), 1.1, dtype=torch.float32)
    assert group_advantages(rewards, normalise_by_std=True).abs().sum() == 0


def test_aggregation() -> None:
    mask = torch.tensor([[True, True, True], [True, False, False]])
    losses = torch.tensor([[1.0, 2.0, 3.0], [10.0, 99.0, 99.0]])
    names = get_args(Aggregation)
    assert names == ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm")
    total = {name: (token_weights(mask, name, max_tokens=4) * losses).sum().item() for name in names}
    assert total == pytest.approx(dict(zip(names, (4.0, 6.0, 8.0, 2.0), strict=True)))


def test_a_denominator_spans_processes_and_an_empty_row_is_no_sequence() -> None:
    mask = torch.tensor([[True, True, False], [False, False, False]])
    elsewhere = (3, 2)  # tokens, sequences of the other process
    totals: dict[Aggregation, float] = {
        "token-mean": 2 / 5,
        "seq-mean-token-sum": 2 / 3,
        "seq-mean-token-mean": 1 / 3,
    }
    for name, expected in totals.items():
        weights = token_weights(
            mask, name, max_tokens=4, sum_over=lambda own: [a + b for a, b in zip(own, elsewhere, strict=True)]
        )
        assert weights.sum().item() == pytest.approx(expected)
        assert not weights[1].any()


def test_learning_rate() -> None:
    constant = OptimizerSettings(lr=1.0, warmup_steps=3)
    assert [learning_rate(constant, step, 10) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    linear = OptimizerSettings(lr=1.0, schedule="linear")
    assert [learning_rate(linear, step, 4) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    cosine = OptimizerSettings(lr=1.0, schedule="cosine")
    assert learning_rate(cosine, 2, 4) == pytest.approx(0.5)
