"""The correction for an engine whose distribution is not the trainer's."""

import dataclasses
import math
from typing import Any

import pytest
import torch

from calibrl_core.algorithms import GRPO, CalibRL
from calibrl_core.data.schema import Example
from calibrl_core.diagnostics.sampler import sampler
from calibrl_core.metrics import describe
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.step.importance import importance_weights, with_trainer_logprobs
from tests.unit.calibrl_core.test_update import batch, config, gradients  # noqa: F401


def test_weights_are_the_ratio_cut_at_the_cap() -> None:
    trainer = torch.tensor([[math.log(0.5), math.log(0.9), math.log(0.2), 0.0]])
    engine = torch.tensor([[math.log(0.4), math.log(0.3), math.log(0.4), 0.0]])
    weights = importance_weights(trainer, engine, cap=2.0)
    torch.testing.assert_close(weights, torch.tensor([[1.25, 2.0, 0.5, 1.0]]))


def test_the_trainer_finds_its_own_log_probabilities(
    engine: SharedPrefillEngine, policy: Policy, examples: list[Example]
) -> None:
    plain = engine.generate(examples, SamplingRequest(group_size=3, temperature=0.7, max_tokens=8, seed=[2]))
    off = dataclasses.replace(plain, logprobs=plain.logprobs - 0.3, entropies=plain.entropies + 1)
    settings = config(GRPO(), rollout={"temperature": 0.7}, micro_batch_rows=4)
    again = with_trainer_logprobs(policy, examples, off, settings)
    torch.testing.assert_close(again.logprobs, plain.logprobs, rtol=0, atol=2e-5)
    torch.testing.assert_close(again.entropies, plain.entropies, rtol=0, atol=2e-5)


def test_the_policy_loss_of_a_token_is_weighed_and_guidance_is_not(policy: Policy, batch: Any) -> None:  # noqa: F811
    """A weight of 2 everywhere doubles the gradient; one of 0 leaves guidance alone."""
    mask = batch.rollouts.mask
    plain, losses = gradients(policy, batch, GRPO(mini_batches=1))
    twice, doubled = gradients(policy, weighed(batch, 2 * mask), GRPO(mini_batches=1), micro_batch_rows=4)
    assert doubled["loss/policy"] == pytest.approx(2 * losses["loss/policy"], abs=1e-6)
    moved = 0
    for name, gradient in plain.items():
        if gradient is not None:
            torch.testing.assert_close(twice[name], 2 * gradient, rtol=1e-3, atol=1e-6)
            moved += gradient.abs().sum().item()
    assert moved > 0

    _, before = gradients(policy, batch, CalibRL(mini_batches=1))
    _, after = gradients(policy, weighed(batch, 0 * mask), CalibRL(mini_batches=1))
    assert after["loss/policy"] == 0
    assert after["loss/guidance"] == pytest.approx(before["loss/guidance"], rel=1e-6)
    assert before["loss/guidance"] != 0


def weighed(batch: Any, importance: Any) -> Any:  # noqa: F811
    return dataclasses.replace(batch, sampler_logprobs=batch.rollouts.logprobs, importance=importance.float())


def test_divergence_and_share_by_hand(batch: Any) -> None:  # noqa: F811
    """One token became likelier by log 3 and one less likely by log 2; the others did not change."""
    rollouts, count = batch.rollouts, int(batch.rollouts.mask.sum())
    engines = rollouts.logprobs.clone()
    engines[0, 0] -= math.log(3)
    engines[1, 0] += math.log(2)
    importance = importance_weights(rollouts.logprobs, engines, cap=2.0)
    found = sampler(dataclasses.replace(batch, sampler_logprobs=engines, importance=importance))
    expected = ((3 - 1 - math.log(3)) + (0.5 - 1 + math.log(2))) / count
    assert found == {
        "kl/sampler": pytest.approx(expected, rel=1e-5),
        "clip/sampler_share": pytest.approx(1 / count),
    }
    assert all(map(describe, found))
    assert sampler(batch) == {}
