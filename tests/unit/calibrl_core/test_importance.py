"""The correction for a sampler whose distribution is not exactly the trainer's."""

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch

from calibrl_core.algorithms import GRPO, CalibRL
from calibrl_core.metrics import describe
from calibrl_core.models.policy import Policy
from calibrl_core.settings.sampling import ImportanceCorrection
from calibrl_core.step.importance import importance_weights
from calibrl_core.step.optimizer import GradientStep
from calibrl_core.step.update import Updater
from tests.support.updates import config

# Two completions of three and two tokens, r = trainer / sampler: 1.25, 4, 0.5 (product 2.5) and 0.8, 0.25 (product
# 0.2); under the mask r would be 100.
TRAINER = torch.tensor([[0.5, 0.8, 0.2], [0.4, 0.1, 1.0]], dtype=torch.float64).log()
SAMPLER = torch.tensor([[0.4, 0.2, 0.4], [0.5, 0.4, 0.01]], dtype=torch.float64).log()
MASK = torch.tensor([[True, True, True], [True, True, False]])


@pytest.mark.parametrize(
    ("correction", "cap", "first", "second", "limited"),
    [
        ("token_truncate", 2.0, [1.25, 2.0, 0.5], [0.8, 0.25], [[False, True, False], [False, False]]),
        ("token_mask", 2.0, [1.25, 0.0, 0.5], [0.8, 0.25], [[False, True, False], [False, False]]),
        ("sequence_truncate", 2.0, [2.0] * 3, [0.2] * 2, [[True] * 3, [False] * 2]),
        ("sequence_mask", 2.0, [0.0] * 3, [0.2] * 2, [[True] * 3, [False] * 2]),
        ("sequence_mask", 3.0, [2.5] * 3, [0.2] * 2, [[False] * 3, [False] * 2]),
        # Geometric means: cube root of 2.5 = 1.357, square root of 0.2 = 0.447.
        ("geometric_mask", 1.36, [1.0] * 3, [0.0] * 2, [[False] * 3, [True] * 2]),
        ("geometric_mask", 1.35, [0.0] * 3, [0.0] * 2, [[True] * 3, [True] * 2]),
        ("geometric_mask", 2.25, [1.0] * 3, [1.0] * 2, [[False] * 3, [False] * 2]),
        ("none", 2.0, [1.0] * 3, [1.0] * 2, [[False] * 3, [False] * 2]),
    ],
)
def test_weights_of_each_correction_by_hand(
    correction: ImportanceCorrection, cap: float, first: list[float], second: list[float], limited: list[list[bool]]
) -> None:
    found = importance_weights(TRAINER, SAMPLER, MASK, correction, cap)
    assert found.values[0].tolist() == pytest.approx(first)
    assert found.values[1, :2].tolist() == pytest.approx(second)
    assert [found.limited[0].tolist(), found.limited[1, :2].tolist()] == limited


def test_a_sequence_weight_of_very_unlikely_tokens_is_finite() -> None:
    """A product of 400 ratios of e would be e^400."""
    weights = importance_weights(
        torch.zeros(1, 400), torch.full((1, 400), -1.0), torch.ones(1, 400).bool(), "sequence_truncate", 1e30
    )
    torch.testing.assert_close(weights.values, torch.full((1, 400), math.exp(20.0)))


def updated(policy: Policy, batch: Any, algorithm: Any, **rollout: Any) -> Any:
    """The gradient of a step in float32 whose sampler is another engine, and the step's metrics."""
    twin = Policy(copy.deepcopy(policy.model), policy.processor, policy.device)
    settings = config(
        algorithm, rollout={"engine": "vllm_server", **rollout}, optimizer={"max_grad_norm": 1e9}, micro_batch_rows=4
    )
    gradient = GradientStep(twin, torch.optim.SGD(twin.model.parameters(), lr=0.0), settings.optimizer)
    updater = Updater(twin, gradient, settings)
    old = updater.recompute_logprobs(batch, 0) if updater.recomputes_logprobs else None
    metrics, _ = updater.update(batch, 0, old_logprobs=old)
    return {name: parameter.grad for name, parameter in twin.model.named_parameters()}, metrics


def test_rollouts_of_older_weights_are_weighed_token_by_token(policy: Policy, batch: Any) -> None:
    """The older weights gave every second token 4 times, the others half of its probability under those of the step:
    r is 0.25 and 2. The ratio of the first update is 1, so the loss is the mean of -A w over all tokens.
    """
    mask, advantages = batch.rollouts.mask, batch.advantages.flatten()  # [B, T], [B]
    older = torch.where(torch.arange(mask.shape[1]) % 2 == 0, math.log(4), -math.log(2)) * mask  # [B, T]
    rollouts = dataclasses.replace(batch.rollouts, sampler_logprobs=batch.rollouts.logprobs + older)
    _, losses = updated(policy, dataclasses.replace(batch, rollouts=rollouts), GRPO(mini_batches=1), importance_cap=1.5)
    weights = torch.where(torch.arange(mask.shape[1]) % 2 == 0, 0.25, 1.5).double() * mask
    expected = -(advantages[:, None] * weights).sum() / mask.sum()
    assert expected.abs() > 0.01
    assert losses["loss/policy"] == pytest.approx(expected.item(), rel=1e-4)
    assert losses["ratio/max"] == 1


@pytest.fixture
def halved(batch: Any) -> Any:
    """The batch, from a sampler under which every token was half as likely as under the trainer."""
    mask = batch.rollouts.mask
    rollouts = dataclasses.replace(batch.rollouts, sampler_logprobs=(batch.rollouts.logprobs - math.log(2)) * mask)
    return dataclasses.replace(batch, rollouts=rollouts)


def test_the_policy_loss_is_weighed_by_trainer_over_sampler(policy: Policy, halved: Any) -> None:
    """Every ratio is 2, and no clip acts: it judges the trainer's own ratio."""
    plain, losses = updated(policy, halved, GRPO(mini_batches=1), importance_correction="none")
    twice, doubled = updated(policy, halved, GRPO(mini_batches=1), importance_cap=4.0)
    cut, limited = updated(policy, halved, GRPO(mini_batches=1), importance_cap=1.5)
    assert doubled["loss/policy"] == pytest.approx(2 * losses["loss/policy"], rel=1e-4)
    assert limited["loss/policy"] == pytest.approx(1.5 * losses["loss/policy"], rel=1e-4)
    assert sum(one.abs().sum().item() for one in plain.values() if one is not None) > 0
    for name, gradient in plain.items():
        if gradient is not None:
            torch.testing.assert_close(twice[name], 2 * gradient, rtol=1e-3, atol=1e-6)
            torch.testing.assert_close(cut[name], 1.5 * gradient, rtol=1e-3, atol=1e-6)
    assert "clip/sampler_share" not in losses
    assert (doubled["clip/sampler_share"], limited["clip/sampler_share"]) == (0.0, 1.0)
    for metrics in (losses, doubled, limited):
        assert metrics["ratio/max"] == 1
        assert metrics["clip/high_share"] + metrics["clip/low_share"] == 0
        assert metrics["kl/sampler"] == pytest.approx(2 - 1 - math.log(2), rel=1e-4)
    assert describe("kl/sampler").unit == "nats/token"
    assert describe("clip/sampler_share").unit == "share of tokens"


def test_guidance_is_not_weighted(policy: Policy, halved: Any) -> None:
    _, plain = updated(policy, halved, CalibRL(mini_batches=1), importance_correction="none")
    _, masked = updated(policy, halved, CalibRL(mini_batches=1), importance_correction="token_mask", importance_cap=1.5)
    assert masked["loss/policy"] == 0
    assert masked["loss/guidance"] == pytest.approx(plain["loss/guidance"], rel=1e-6)
    assert plain["loss/guidance"] != 0


def test_the_divergence_is_that_of_the_first_update(policy: Policy, halved: Any) -> None:
    """The later mini-batches have moved away from the sampler for another reason."""
    _, metrics = updated(policy, halved, GRPO(mini_batches=2), importance_cap=4.0)
    assert metrics["kl/sampler"] == pytest.approx(1 - math.log(2), rel=1e-4)
    assert metrics["ratio/max"] == 1  # recomputed: the old log-probabilities are the trainer's
