"""Old log-probabilities are the trainer's own: in bfloat16 no ratio differs from 1 before an update."""

import copy
import dataclasses
from typing import Any

import pytest
import torch

from calibrl_core.algorithms import GRPO, GSPO, CalibRL
from calibrl_core.data.schema import Example
from calibrl_core.models.policy import Policy
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.step.optimizer import GradientStep
from calibrl_core.step.update import Updater
from tests.support.updates import GROUP, config


@pytest.fixture(scope="module")
def half_policy(policy: Policy) -> Policy:
    return Policy(copy.deepcopy(policy.model), policy.processor, policy.device, "bfloat16")


@pytest.fixture
def half_batch(half_policy: Policy, examples: list[Example], batch: Any) -> Any:
    """The batch, but sampled in bfloat16."""
    request = SamplingRequest(group_size=GROUP, temperature=1.0, max_tokens=10, seed=[2])
    return dataclasses.replace(batch, rollouts=SharedPrefillEngine(half_policy).generate(examples, request))


def updated(policy: Policy, batch: Any, algorithm: Any, lr: float = 0.0) -> Any:
    """Metrics and ratios `[B, T]` of a step, and whether it needed a pass of its own for the old log-probabilities."""
    twin = Policy(copy.deepcopy(policy.model), policy.processor, policy.device, "bfloat16")
    settings = config(algorithm, precision="bfloat16", micro_batch_rows=4)
    gradient = GradientStep(twin, torch.optim.SGD(twin.model.parameters(), lr=lr), settings.optimizer)
    updater = Updater(twin, gradient, settings)
    old = updater.recompute_logprobs(batch, 0) if updater.recomputes_logprobs else None
    return *updater.update(batch, 0, old_logprobs=old), updater.recomputes_logprobs


@pytest.mark.parametrize("algorithm", [GRPO, GSPO, CalibRL])
@pytest.mark.parametrize("mini_batches", [1, 2])
def test_in_bfloat16_every_ratio_is_1_before_an_update(
    half_policy: Policy, half_batch: Any, algorithm: Any, mini_batches: int
) -> None:
    """One update: its own pass gives them. Two: a pass before, packed as the updates are."""
    metrics, ratios, recomputed = updated(half_policy, half_batch, algorithm(mini_batches=mini_batches))
    assert recomputed == (mini_batches == 2)
    evaluated = half_batch.rollouts.mask & ~ratios.isnan()
    assert evaluated.sum() > 20
    assert (ratios[evaluated] == 1).all()
    assert metrics["ratio/max"] == metrics["ratio/mean"] == 1
    assert [metrics[f"clip/{name}_share"] for name in ("low", "high", "dual")] == [0, 0, 0]
    assert metrics["loss/grad_norm"] > 0
    assert 1e-8 < metrics["kl/sampler"] < 0.01  # the sampler's own log-probabilities would not do
    assert metrics["clip/sampler_share"] == 0


def test_later_updates_are_compared_with_the_policy_before_the_first(half_policy: Policy, half_batch: Any) -> None:
    metrics, ratios, _ = updated(half_policy, half_batch, GRPO(mini_batches=2), lr=0.5)
    first, second = ([row for row in range(12) if row // GROUP % 2 == part] for part in (0, 1))
    mask = half_batch.rollouts.mask
    assert (ratios[first][mask[first]] == 1).all()
    assert (ratios[second][mask[second]] - 1).abs().max() > 0.01
    assert metrics["ratio/max"] > 1
