"""Adapters on a model of 4 bits: the numbers of its dequantised weights, resume, and the saved model."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from calibrl_core.config import BuiltinModel, EvaluateConfig, LoraSettings, PathModel
from calibrl_core.data.schema import Example
from calibrl_core.models.adapters import lora_layers
from calibrl_core.models.policy import Policy, load_policy, make_reference
from calibrl_core.models.quantisation import BLOCK, QuantisedLinear, quantised_layers
from calibrl_core.report import EventFile
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.self_check import check_model
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.train import train
from tests.support.training import config, of_type

installed = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="calibrl[quantization] is not installed")
CPU = torch.device("cpu")


def source(**options: Any) -> BuiltinModel:
    return BuiltinModel(builtin="tiny-vlm", lora=LoraSettings(rank=4, **options), quantization="nf4")


def adapted(model: Any, **options: Any) -> Policy:
    """A policy whose adapters do something: fresh ones are 0."""
    policy = load_policy(model, **options)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in policy.trained.items():
            if ".lora_B." in name:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    return policy


def dequantised(policy: Policy) -> Policy:
    """The same model and adapters, with the weights of 4 bits as float32."""
    plain = adapted(source().model_copy(update={"quantization": None}))
    layers = lora_layers(plain.model)
    with torch.no_grad():
        for name, layer in quantised_layers(policy.model).items():
            weight: Any = layers[name.removesuffix(".base_layer")].get_base_layer().weight
            weight.copy_(layer.weight)
    return plain


def sampled(policy: Policy, examples: list[Example]) -> Any:
    request = SamplingRequest(group_size=3, temperature=1.0, max_tokens=8, seed=[4])
    return SharedPrefillEngine(policy).generate(examples[:2], request)


def logprobs(policy: Policy, examples: list[Example], rollouts: Any) -> Tensor:
    return policy.logprobs(examples[:2], [row // 3 for row in range(6)], rollouts.tokens, rollouts.mask, 1.0)


@installed
def test_codes_are_the_nearest_of_16_values_of_each_block() -> None:
    layer = nn.Linear(BLOCK, 2, bias=False)
    with torch.no_grad():
        layer.weight[0] = torch.linspace(-2, 2, BLOCK)
        layer.weight[1] = torch.tensor([0.0, 0.5] * (BLOCK // 2))
    found = QuantisedLinear(layer, CPU).weight
    # 0 and 1 are values of NF4, times the largest number: 0.5, in 8 bits.
    assert found[1].unique().tolist() == pytest.approx([0.0, 0.5], rel=0.02)
    assert len(found[0].unique()) == 16
    # The largest gap of NF4 is that of -1 and -0.6962; at most half of it, times 2.
    assert (found[0] - layer.weight[0]).abs().max() <= 0.3038 + 1e-3


@installed
@pytest.mark.parametrize("options", [{}, {"dora": True}, {"targets": ("q_proj",)}], ids=str)
def test_the_language_model_is_quantised_and_little_else(options: dict[str, Any], policy: Policy) -> None:
    found = load_policy(source(**options))
    names = {name.replace(".base_layer", "") for name in quantised_layers(found.model)}
    linear = {
        name
        for name, module in policy.model.named_modules()
        if isinstance(module, nn.Linear) and ".text_model." in name
    }
    assert names == linear
    assert found.parameter_count - sum(one.numel() for one in found.trained.values()) == policy.parameter_count
    assert all(".lora_" in name for name in found.trained)


@installed
def test_gradients_are_those_of_the_dequantised_weights(examples: list[Example]) -> None:
    quantised = adapted(source())
    plain = dequantised(quantised)
    rollouts = sampled(plain, examples)
    for one in (quantised, plain):
        logprobs(one, examples, rollouts).square().sum().backward()
    assert quantised.trained.keys() == plain.trained.keys()
    for name, parameter in quantised.trained.items():
        gradient: Any = plain.trained[name].grad
        assert gradient.any(), name
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-5 * float(gradient.abs().max()))


@installed
@pytest.mark.parametrize("options", [{}, {"dora": True}], ids=str)
def test_sampler_and_update_agree_and_the_saved_model_too(
    options: dict[str, Any], examples: list[Example], tmp_path: Path
) -> None:
    quantised = adapted(source(**options))
    assert check_model(quantised, examples) < 1e-4
    rollouts = sampled(quantised, examples)
    quantised.save(tmp_path)
    merged, resumed = load_policy(PathModel(path=str(tmp_path))), load_policy(source(**options), checkpoint=tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(logprobs(quantised, examples, rollouts), rollouts.logprobs, rtol=0, atol=2e-5)
        torch.testing.assert_close(logprobs(merged, examples, rollouts), rollouts.logprobs, rtol=0, atol=5e-5)
        reference = make_reference(quantised, source(**options))
        start = load_policy(source(**options))
        torch.testing.assert_close(logprobs(reference, examples, rollouts), logprobs(start, examples, rollouts))
    assert torch.equal(sampled(resumed, examples).logprobs, rollouts.logprobs)


@installed
def test_in_bfloat16_the_check_of_the_model_passes(examples: list[Example]) -> None:
    quantised = adapted(source(), precision="bfloat16")
    check_model(quantised, examples)
    for layer in quantised_layers(quantised.model).values():
        assert layer(torch.zeros(1, layer.in_features)).dtype == torch.float32  # outside of autocast
        assert layer.weight.dtype == torch.float32


@installed
@pytest.mark.usefixtures("rewarding")
def test_a_quantised_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    def run(folder: Path, steps: int) -> Any:
        settings = config(model=source(dora=True).model_dump(), steps=steps, prompts_per_step=3)
        report = EventFile(folder)
        train(settings, report, lambda: False)
        report.close()
        return [event["values"]["loss/total"] for event in of_type(folder, "metrics")]

    whole = run(tmp_path / "whole", 2)
    run(tmp_path / "parts", 1)
    assert run(tmp_path / "parts", 2) == whole
    assert all(whole)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": {"quantization": "nf4"}}, r"model\.quantization: nf4 weights cannot be trained; set model\.lora"),
        (
            {"rollout": {"engine": "vllm_server"}},
            r"model\.quantization: nf4 is not supported by the engine vllm_server; use",
        ),
        ({"parallel": "fsdp"}, r"model\.quantization: quantised weights cannot be sharded; use parallel: ddp"),
    ],
    ids=str,
)
def test_what_quantised_weights_exclude_is_refused(changes: dict[str, Any], says: str) -> None:
    model = {"lora": {}, "quantization": "nf4"}
    given = {"model": model, **changes}
    with pytest.raises(ValueError, match=says):
        config(**given | {"model": {"builtin": "tiny-vlm", **given["model"]}})


def test_evaluations_refuse_quantised_weights_in_vllm() -> None:
    model = {"builtin": "tiny-vlm", "lora": {}, "quantization": "nf4"}
    given = {"models": [{"builtin": "tiny-vlm"}, model], "data": [{"builtin": "digits"}]}
    with pytest.raises(ValueError, match=r"models\.1\.quantization: nf4 is not supported by the engine vllm_server"):
        EvaluateConfig.model_validate({**given, "rollout": {"engine": "vllm_server"}})


def test_without_bitsandbytes_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ValueError, match=r"model\.quantization: nf4 needs bitsandbytes: .*calibrl\[quantization\]"):
        load_policy(source())
