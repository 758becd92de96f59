"""Adapters with other scales, trained row norms (DoRA) and dropout: sampled, trained, merged and restored alike."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from calibrl_core.config import BuiltinModel, LoraSettings, ModelOptions, PathModel
from calibrl_core.data.schema import Example
from calibrl_core.models import adapters
from calibrl_core.models.loading import load_model
from calibrl_core.models.policy import Policy, load_policy, make_reference
from calibrl_core.report import EventFile
from calibrl_core.rollout.base import SamplingRequest
from calibrl_core.rollout.self_check import check_model
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.step.update import Updater
from calibrl_core.train import train
from tests.support.training import config, of_type

VARIANTS = [{"rslora": True}, {"dora": True}, {"dora": True, "rslora": True, "dropout": 0.5}]
OWNERS = [row // 3 for row in range(6)]


def source(**options: Any) -> BuiltinModel:
    return BuiltinModel(builtin="tiny-vlm", lora=LoraSettings(rank=4, alpha=8, **options))


def trained(**options: Any) -> Policy:
    """A policy whose adapters, and the norms of DoRA, are no longer those of the start."""
    policy = load_policy(source(**options))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in policy.trained.items():
            change = 0.05 * torch.randn(parameter.shape, generator=generator)
            parameter.add_(change) if ".lora_B." in name else parameter.mul_(1 + change)
    return policy


def logprobs(policy: Policy, examples: list[Example], rollouts: Any) -> Tensor:
    return policy.logprobs(examples[:2], OWNERS, rollouts.tokens, rollouts.mask, 1.0)


def sampled(policy: Policy, examples: list[Example]) -> Any:
    request = SamplingRequest(group_size=3, temperature=1.0, max_tokens=8, seed=[4])
    return SharedPrefillEngine(policy).generate(examples[:2], request)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_a_variant_starts_as_the_base(options: dict[str, Any], policy: Policy, examples: list[Example]) -> None:
    fresh = load_policy(source(**options))
    rollouts = sampled(policy, examples)
    with torch.no_grad():
        assert torch.equal(logprobs(fresh, examples, rollouts), logprobs(policy, examples, rollouts))
        reference = make_reference(trained(**options), source(**options))
        assert torch.equal(logprobs(reference, examples, rollouts), logprobs(policy, examples, rollouts))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's own business
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_a_variant_is_sampled_merged_and_restored(
    options: dict[str, Any], policy: Policy, examples: list[Example], tmp_path: Path
) -> None:
    from peft import PeftModel

    adapted = trained(**options)
    check_model(adapted, examples)
    rollouts = sampled(adapted, examples)
    assert rollouts.texts != sampled(policy, examples).texts
    tmp_path.joinpath("saved").mkdir()
    adapted.save(tmp_path / "saved")
    merged = load_policy(PathModel(path=str(tmp_path / "saved")))
    resumed = load_policy(source(**options), checkpoint=tmp_path / "saved")
    theirs = PeftModel.from_pretrained(copy.deepcopy(policy.model), tmp_path / "saved" / adapters.FOLDER)
    rows = policy.encode(examples[:2])
    inputs = {"input_ids": rows.input_ids, "attention_mask": rows.attention_mask, **rows.images}
    with torch.no_grad():
        torch.testing.assert_close(logprobs(adapted, examples, rollouts), rollouts.logprobs, rtol=0, atol=2e-5)
        torch.testing.assert_close(logprobs(merged, examples, rollouts), rollouts.logprobs, rtol=0, atol=5e-5)
        assert torch.equal(theirs(**inputs).logits, adapted.model(**inputs).logits)
    assert torch.equal(sampled(resumed, examples).logprobs, rollouts.logprobs)
    with pytest.raises(ValueError, match=r"restore model.lora"):
        load_policy(source(dora=not options.get("dora", False)), checkpoint=tmp_path / "saved")


def test_a_merged_weight_has_the_trained_row_norms() -> None:
    state = {
        "q.base_layer.weight": torch.tensor([[1.0, 4.0], [0.0, 2.0]]),
        "q.lora_A.default.weight": torch.tensor([[1.0, 0.0]]),
        "q.lora_B.default.weight": torch.tensor([[4.0], [0.0]]),
        "q.lora_magnitude_vector.default.weight": torch.tensor([10.0, 1.0]),
    }
    layer: Any = SimpleNamespace(scaling={"default": 0.5})
    # W + 0.5 B A = [[3, 4], [0, 2]]; its rows have the norms 5 and 2
    merged = adapters.merge_adapters(state, {"q": layer})
    assert merged.keys() == {"q.weight"}
    torch.testing.assert_close(merged["q.weight"], torch.tensor([[6.0, 8.0], [0.0, 1.0]]))


def test_adapters_are_float32_if_the_files_are_not() -> None:
    model, _ = load_model(BuiltinModel(builtin="tiny-vlm"))
    model.bfloat16()
    adapters.prepare_model(model, ModelOptions(lora=LoraSettings(rank=1, dora=True)))
    # Otherwise a resume would round those of its checkpoint.
    assert {one.dtype for name, one in model.named_parameters() if ".lora_" in name} == {torch.float32}
    for layer in adapters.lora_layers(model).values():
        norms = layer.lora_magnitude_vector["default"].weight
        assert norms.requires_grad
        weight = cast(Tensor, layer.get_base_layer().weight)
        assert torch.equal(cast(Tensor, norms), weight.float().norm(dim=1))


@pytest.mark.parametrize("dora", [False, True])
def test_dropout_acts_where_asked_and_by_its_seed(dora: bool, examples: list[Example]) -> None:
    adapted = trained(dora=dora, dropout=0.5)
    rollouts = sampled(adapted, examples)
    state = torch.get_rng_state()

    def dropped(*seed: int) -> Tensor:
        with torch.no_grad(), adapted.dropping(*seed):
            return logprobs(adapted, examples, rollouts)

    with torch.no_grad():
        before = logprobs(adapted, examples, rollouts)
        first = dropped(1, 2)
        assert (first - before).abs().max() > 1e-3
        assert torch.equal(dropped(1, 2), first)
        assert not torch.equal(dropped(1, 3), first)
        assert torch.equal(logprobs(adapted, examples, rollouts), before)
    assert torch.equal(torch.get_rng_state(), state)


def test_half_of_an_adapters_inputs_are_dropped_and_the_rest_doubled() -> None:
    policy = load_policy(source(dropout=0.5))
    layer: Any = next(iter(policy._lora.values()))
    inputs = torch.ones(64, layer.in_features)
    with policy.dropping(0):
        found = layer.lora_dropout["default"](inputs)
    assert set(found.unique().tolist()) == {0.0, 2.0}
    assert 0.45 < (found == 0).float().mean() < 0.55
    assert torch.equal(layer.lora_dropout["default"](inputs), inputs)


def test_recomputed_layers_drop_the_same_inputs(examples: list[Example]) -> None:
    gradients = []
    rollouts = sampled(trained(), examples)
    for recomputed in (False, True):
        policy = load_policy(source(dropout=0.5, dora=True).model_copy(update={"gradient_checkpointing": recomputed}))
        with policy.dropping(7):
            logprobs(policy, examples, rollouts).square().sum().backward()
        gradients.append([one.grad for one in policy.trained.values()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


def test_with_dropout_old_logprobs_have_passes_of_their_own() -> None:
    settings = config(algorithm={"type": "grpo", "mini_batches": 1})
    found = []
    for dropout in (0.0, 0.5):
        policy = load_policy(source(dropout=dropout), "bfloat16")
        found.append(Updater(policy, cast(Any, None), settings).recomputes_logprobs)
    assert found == [False, True]


@pytest.mark.usefixtures("rewarding")
def test_a_run_with_dropout_resumes_bit_for_bit(tmp_path: Path) -> None:
    def run(folder: Path, steps: int) -> Any:
        settings = config(model=source(dropout=0.3, dora=True).model_dump(), steps=steps, prompts_per_step=3)
        report = EventFile(folder)
        train(settings, report, lambda: False)
        report.close()
        return [event["values"]["loss/total"] for event in of_type(folder, "metrics")]

    whole = run(tmp_path / "whole", 2)
    run(tmp_path / "parts", 1)
    assert run(tmp_path / "parts", 2) == whole
    assert all(whole)
