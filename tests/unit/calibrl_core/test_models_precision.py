"""bfloat16: forward passes in it, weights, gradients, log-probabilities and entropies in float32, and one arithmetic
for sampler and trainer."""

import copy
from typing import Any

import pytest
import torch

from calibrl_core.data.schema import Example
from calibrl_core.models.encoding import PromptEncoder
from calibrl_core.models.encoding_workers import _Processing, _unpacked
from calibrl_core.models.policy import Policy
from calibrl_core.rollout import cache as cache_module
from calibrl_core.rollout import shared_prefill
from calibrl_core.rollout.base import Rollouts, SamplingRequest
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine


@pytest.fixture(scope="module")
def half_policy(policy: Policy) -> Any:
    return Policy(copy.deepcopy(policy.model), policy.processor, policy.device, "bfloat16")


@pytest.fixture(scope="module")
def rollouts(half_policy: Policy, examples: list[Example]) -> Any:
    engine = SharedPrefillEngine(half_policy)
    return engine.generate(examples, SamplingRequest(group_size=4, temperature=1.0, max_tokens=12, seed=[1]))


OWNERS = [row // 4 for row in range(24)]


def test_auto_is_float32_on_a_cpu(policy: Policy) -> None:
    assert not policy.bfloat16


def test_layers_run_in_bfloat16_and_the_head_does_not(
    half_policy: Policy, examples: list[Example], rollouts: Rollouts
) -> None:
    seen: dict[str, torch.dtype] = {}
    layer = half_policy.model.get_decoder().layers[0].self_attn.q_proj
    handle = layer.register_forward_hook(lambda module, given, result: seen.update(layer=result.dtype))
    scores = half_policy.token_logprobs(examples, OWNERS, rollouts.tokens, rollouts.mask, 1.0, with_entropy=True)
    assert seen == {"layer": torch.bfloat16}
    seen.clear()
    SharedPrefillEngine(half_policy).generate(
        examples[:1], SamplingRequest(group_size=1, temperature=1.0, max_tokens=2, seed=[0])
    )
    handle.remove()
    assert seen == {"layer": torch.bfloat16}
    assert scores.entropies is not None
    assert scores.logprobs.dtype == scores.entropies.dtype == rollouts.logprobs.dtype == torch.float32
    assert {parameter.dtype for parameter in half_policy.model.parameters()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        assert half_policy.head.logits(torch.ones(1, 128, dtype=torch.bfloat16)).dtype == torch.float32


def test_gradients_are_float32_and_near_those_of_float32(
    policy: Policy, half_policy: Policy, examples: list[Example], rollouts: Rollouts
) -> None:
    gradients = []
    for one in (policy, half_policy):
        found = one.logprobs(examples, OWNERS, rollouts.tokens, rollouts.mask, 1.0)
        weight = one.model.get_decoder().layers[0].self_attn.q_proj.weight
        (gradient,) = torch.autograd.grad(found.sum(), weight)
        assert gradient.dtype == torch.float32
        gradients.append(gradient.flatten())
    first, second = gradients
    assert torch.cosine_similarity(first, second, dim=0) > 0.99
    assert not torch.equal(first, second)


def test_sampler_and_trainer_agree_as_well_as_bfloat16_lets_them(
    policy: Policy, half_policy: Policy, examples: list[Example], rollouts: Rollouts
) -> None:
    """Packed and one token at a time, sums come in another order; each rounds to 8 bits."""
    with torch.no_grad():
        again = half_policy.logprobs(examples, OWNERS, rollouts.tokens, rollouts.mask, 1.0)
        exact = policy.logprobs(examples, OWNERS, rollouts.tokens, rollouts.mask, 1.0)
    between = (again - rollouts.logprobs)[rollouts.mask].abs()
    assert between.max() < 0.1
    assert between.mean() < 0.01
    assert 1e-5 < (exact - rollouts.logprobs)[rollouts.mask].abs().mean() < 0.02


def test_an_update_smaller_than_bfloat16_can_hold_is_kept(
    half_policy: Policy, examples: list[Example], rollouts: Rollouts
) -> None:
    """The paper's rate of 1e-6 vanishes in bfloat16 weights."""
    twin = Policy(copy.deepcopy(half_policy.model), half_policy.processor, half_policy.device, "bfloat16")
    optimizer = torch.optim.AdamW(twin.model.parameters(), lr=1e-6)
    twin.logprobs(examples, OWNERS, rollouts.tokens, rollouts.mask, 1.0).sum().backward()
    optimizer.step()
    before, after = (one.model.get_decoder().layers[0].mlp.up_proj.weight for one in (half_policy, twin))
    assert (before != after).float().mean() > 0.9
    assert (before.bfloat16() != after.bfloat16()).float().mean() < 0.1


def test_pixels_are_prepared_and_sent_in_bfloat16(policy: Policy, half_policy: Policy, examples: list[Example]) -> None:
    whole, half = policy.encode(examples[:2]).images, half_policy.encode(examples[:2]).images
    assert whole.keys() == half.keys()
    assert torch.equal(half["pixel_values"], whole["pixel_values"].bfloat16())
    assert all(torch.equal(half[name], one) for name, one in whole.items() if name != "pixel_values")
    sent: Any = _Processing(half_policy.encoder)[examples[0]]
    data, dtype, shape = sent["pixel_values"]
    assert (dtype, len(data)) == (torch.bfloat16, 2 * shape.numel())
    assert torch.equal(_unpacked(sent)["pixel_values"], half["pixel_values"][:1])


def test_a_pass_computes_the_same_from_rounded_pixels(
    half_policy: Policy, examples: list[Example], rollouts: Rollouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.no_grad():
        found = half_policy.logprobs(examples, OWNERS, rollouts.tokens, rollouts.mask, 1.0)
        whole = PromptEncoder(half_policy.processor, None)
        monkeypatch.setattr(half_policy, "encoder", whole)
        expected = half_policy.logprobs(examples, OWNERS, rollouts.tokens, rollouts.mask, 1.0)
    assert half_policy.encode(examples[:1]).images["pixel_values"].dtype == torch.float32
    assert torch.equal(found, expected)


def test_keys_and_values_are_kept_in_bfloat16_and_change_no_number(
    half_policy: Policy, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = SamplingRequest(group_size=2, temperature=1.0, max_tokens=6, seed=[3])
    found = SharedPrefillEngine(half_policy).generate(examples[:2], request)
    kept = []

    def whole(cache: Any, rows: torch.Tensor, new_tokens: int, *, bfloat16: bool) -> Any:
        half = cache_module.with_spare_capacity(copy.deepcopy(cache), rows, new_tokens, bfloat16=bfloat16)
        made = cache_module.with_spare_capacity(cache, rows, new_tokens)
        layers: Any = zip(half.layers, made.layers, strict=True)
        kept.append([(one.keys.dtype, other.keys.dtype) for one, other in layers])
        return made

    monkeypatch.setattr(shared_prefill, "with_spare_capacity", whole)
    expected = SharedPrefillEngine(half_policy).generate(examples[:2], request)
    assert kept == [[(torch.bfloat16, torch.float32)] * 4]
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.logprobs, expected.logprobs)
