"""Models that compute something else in train mode: the update runs the distribution that was sampled from."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, LlamaConfig, MixtralConfig, OPTConfig, PhimoeConfig, Qwen2Config

from calibrl_core.algorithms import GRPO
from calibrl_core.config import BuiltinModel, LoraSettings, PathModel
from calibrl_core.data.schema import Example
from calibrl_core.diagnostics.base import StepBatch
from calibrl_core.models.adapters import prepare_model
from calibrl_core.models.policy import Policy, load_policy
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.step.advantages import group_advantages
from calibrl_core.step.experts import no_experts
from calibrl_core.step.optimizer import GradientStep
from calibrl_core.step.update import Updater
from calibrl_core.verifiers.scorer import Score
from tests.support.updates import config

EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "jitter of the router": (MixtralConfig, {**EXPERTS, "router_jitter_noise": 0.5}),
    "random choice of experts": (PhimoeConfig, {**EXPERTS, "input_jitter_noise": 0.5, "attention_bias": True}),
    "dropout modules": (GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0.5, "attn_pdrop": 0.5}),
    "dropout in the attention": (Qwen2Config, {"attention_dropout": 0.5}),
    "dropout in a layer's own pass": (OPTConfig, {"dropout": 0.5, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "statistics of batches": (LlamaConfig, {}),
}


class BatchNorm(nn.BatchNorm1d):
    """Over the channels of hidden states `[B, S, D]`."""

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden.transpose(1, 2)).transpose(1, 2)


def policy_of(kind: str, text_policy: Callable[..., Any]) -> Policy:
    config_class, settings = KINDS[kind]
    policy: Policy = text_policy(config_class, **settings)
    if kind == "statistics of batches":
        policy.model.model.norm = BatchNorm(32).eval()
    return policy


def batch_of(policy: Policy, examples: list[Example]) -> StepBatch:
    """Three groups of two completions; in each group one passes."""
    request = SamplingRequest(group_size=2, temperature=1.0, max_tokens=9, seed=[4])
    passed = torch.tensor([[True, False]] * 3)
    return StepBatch(
        examples=examples,
        rollouts=SharedPrefillEngine(policy).generate(examples, request),
        scores=[Score({"math": float(one)}, float(one), bool(one), bool(one)) for one in passed.flatten()],
        rewards=passed.double(),
        passed=passed,
        advantages=group_advantages(passed.double(), normalise_by_std=False),
        experts=no_experts(examples, policy.device),
    )


def update(policy: Policy, batch: StepBatch) -> Any:
    """Return the ratios `[B, T]` and the gradients of one update of a copy of `policy`."""
    twin = Policy(copy.deepcopy(policy.model), policy.processor, policy.device)
    gradient = GradientStep(twin, torch.optim.SGD(twin.model.parameters(), lr=0.0), config(GRPO()).optimizer)
    _, ratios = Updater(twin, gradient, config(GRPO())).update(batch, 0)
    assert all(parameter.grad is None for parameter in policy.model.parameters())
    return ratios, {name: parameter.grad for name, parameter in twin.model.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_ratios_are_1_and_updates_repeat_in_models_with_a_train_mode(
    kind: str, text_policy: Callable[..., Any], text_examples: list[Example]
) -> None:
    """With gradient checkpointing too, whose layers ask for train mode in transformers."""
    policy = policy_of(kind, text_policy)
    batch = batch_of(policy, text_examples)
    mask = batch.rollouts.mask
    ratios, gradients = update(policy, batch)
    torch.testing.assert_close(ratios[mask], torch.ones(int(mask.sum())), rtol=0, atol=2e-5)
    again = update(policy, batch)[1]
    assert all(torch.equal(gradient, again[name]) for name, gradient in gradients.items())
    prepare_model(policy.model, PathModel(path="model", gradient_checkpointing=True))
    recomputed, checkpointed = update(policy, batch)
    torch.testing.assert_close(recomputed, ratios, rtol=0, atol=1e-6, equal_nan=True)
    for name, gradient in gradients.items():
        torch.testing.assert_close(checkpointed[name], gradient)


def test_no_part_of_a_policy_is_in_train_mode() -> None:
    options = {"lora": LoraSettings(rank=2), "gradient_checkpointing": True}
    policy = load_policy(BuiltinModel(builtin="tiny-vlm", **options))
    assert not any(module.training for module in policy.model.modules())
    assert not any(module.training for module in policy.without_adapters().model.modules())


def test_checkpointing_needs_layers_that_can_recompute() -> None:
    with pytest.raises(ValueError, match="gradient_checkpointing: this model has no layers that can recompute"):
        prepare_model(nn.Linear(1, 1), PathModel(path="model", gradient_checkpointing=True))
