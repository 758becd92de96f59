"""Advantages, aggregation, data order, learning rate, accuracy: small functions with hand-derived answers."""

import numpy as np
import pytest
import torch

from calibrl_core.accuracy import Answers, batches, interval, summarise
from calibrl_core.advantages import group_advantages
from calibrl_core.aggregation import token_weights
from calibrl_core.config import OptimizerSettings
from calibrl_core.data.schema import Example
from calibrl_core.optimizer import learning_rate
from calibrl_core.order import step_indices
from calibrl_core.rewards import score
from calibrl_core.verifiers import MathReward


def test_advantages():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.1] * 4], dtype=torch.float64)
    assert group_advantages(rewards, normalise_by_std=False).tolist() == [[0.75, -0.25, -0.25, -0.25], [0.0] * 4]
    # unbiased standard deviation of 1, 0, 0, 0 is 0.5
    normalised = group_advantages(rewards, normalise_by_std=True)
    assert normalised[0].tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-5)
    assert normalised[1].tolist() == [0.0] * 4


def test_equal_rewards_have_no_advantage_however_the_mean_rounds():
    rewards = torch.full((1, 10), 1.1, dtype=torch.float32)
    assert group_advantages(rewards, normalise_by_std=True).abs().sum() == 0


def test_aggregation():
    mask = torch.tensor([[True, True, True], [True, False, False]])
    losses = torch.tensor([[1.0, 2.0, 3.0], [10.0, 99.0, 99.0]])
    total = {
        name: (token_weights(mask, name) * losses).sum().item()
        for name in ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum")
    }
    assert total == pytest.approx({"token-mean": 4.0, "seq-mean-token-mean": 6.0, "seq-mean-token-sum": 8.0})


def test_an_epoch_takes_every_example_once_and_depends_on_seed_and_step_alone():
    steps = [step_indices(seed=3, step=step, rows=10, per_step=4) for step in range(5)]
    flat = [index for step in steps for index in step]
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert flat[:10] != flat[10:]
    assert step_indices(seed=3, step=2, rows=10, per_step=4) == steps[2]
    assert step_indices(seed=4, step=0, rows=10, per_step=4) != steps[0]


def test_learning_rate():
    constant = OptimizerSettings(lr=1.0, warmup_steps=3)
    assert [learning_rate(constant, step, 10) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    linear = OptimizerSettings(lr=1.0, schedule="linear")
    assert [learning_rate(linear, step, 4) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    cosine = OptimizerSettings(lr=1.0, schedule="cosine")
    assert learning_rate(cosine, 2, 4) == pytest.approx(0.5)


def answers(texts):
    examples = [Example(id=str(row), question="", answer="1") for row in range(len(texts))]
    full = [[f"<answer>{text}</answer>" for text in row] for row in texts]
    scores = [[score(text, "1", [MathReward()]) for text in row] for row in full]
    return Answers(examples, full, scores, np.ones((len(texts), len(texts[0])), dtype=np.int64))


def test_summary():
    found = summarise(answers([["1", "1", "2", "3"], ["2", "2", "1", "1"], ["4", "5", "6", "7"]]), seed=0)
    assert found["accuracy"] == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert found["pass_at_k"] == pytest.approx(2 / 3)
    assert found["majority_at_k"] == pytest.approx(1 / 3)  # a tie goes to the answer given first
    assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]
    assert found["strict_accuracy"] == 0.0  # no <think>


def test_interval_is_that_of_the_mean():
    numbers = np.array([0.0, 1.0] * 50)
    low, high = interval(numbers, seed=0)
    assert low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.015)  # standard error 0.5 / 10
    assert high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.015)


def test_batches_are_as_many_as_announced():
    assert [batches(64, 8), batches(65, 8), batches(3, 500)] == [2, 3, 3]
