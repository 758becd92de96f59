"""Advantages, aggregation, data order, learning rate: small functions with hand-derived answers."""

from typing import get_args

import pytest
import torch

from calibrl_core.algorithms.base import Aggregation
from calibrl_core.config import OptimizerSettings
from calibrl_core.data.order import DataOrder, step_indices
from calibrl_core.data.schema import Example
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


def test_an_epoch_takes_each_example_once_given_only_seed_and_step() -> None:
    steps = [step_indices(seed=3, step=step, rows=10, per_step=4) for step in range(5)]
    flat = [index for step in steps for index in step]
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert flat[:10] != flat[10:]
    assert step_indices(seed=3, step=2, rows=10, per_step=4) == steps[2]
    assert step_indices(seed=4, step=0, rows=10, per_step=4) != steps[0]


def test_without_shuffling_every_epoch_has_the_order_of_the_data(examples: list[Example]) -> None:
    order = DataOrder(examples, seed=3, per_step=4, shuffle=False)
    rows = [examples.index(example) for step in range(3) for example in order.examples(step)]
    assert rows == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]
    assert {examples.index(example) for example in order.extra_examples(1, 1, 2)} == {2, 3}  # not the step's own


def test_more_examples_are_others_while_there_are_enough(examples: list[Example]) -> None:
    order = DataOrder(examples, seed=0, per_step=2)
    for step in range(3):
        own = {one.id for one in order.examples(step)}
        more = order.extra_examples(step, 1, 4)
        assert {one.id for one in more} == {one.id for one in examples} - own
        assert more == order.extra_examples(step, 1, 4)
    assert order.extra_examples(0, 1, 3) != order.extra_examples(0, 2, 3)
    assert len(order.extra_examples(0, 1, 20)) == 20


def test_learning_rate() -> None:
    constant = OptimizerSettings(lr=1.0, warmup_steps=3)
    assert [learning_rate(constant, step, 10) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    linear = OptimizerSettings(lr=1.0, schedule="linear")
    assert [learning_rate(linear, step, 4) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    cosine = OptimizerSettings(lr=1.0, schedule="cosine")
    assert learning_rate(cosine, 2, 4) == pytest.approx(0.5)
