"""Trained parameters: adapters, all except the vision tower, or all; and their checkpoints."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from calibrl_core.config import BuiltinModel, LoraSettings, PathModel, Precision
from calibrl_core.data.schema import Example
from calibrl_core.models.policy import Policy, load_policy, make_reference
from calibrl_core.rollout.base import Rollouts, SamplingRequest
from calibrl_core.rollout.shared_prefill import SharedPrefillEngine
from calibrl_core.run.checkpoint import Checkpoints, TrainerState
from calibrl_core.settings.record import CheckpointSettings

LORA = BuiltinModel(builtin="tiny-vlm", lora=LoraSettings(rank=4, alpha=16))


def adapted(source: Any = LORA, precision: Precision = "auto", seed: int = 0) -> Any:
    """A policy whose adapters do something: fresh ones are 0."""
    policy = load_policy(source, precision)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if ".lora_B." in name:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.fixture(scope="module")
def lora_policy() -> Any:
    """Tests must leave its weights as they are."""
    return adapted()


def sampled(policy: Policy, examples: list[Example]) -> Any:
    engine = SharedPrefillEngine(policy)
    return engine.generate(examples[:2], SamplingRequest(group_size=3, temperature=1.0, max_tokens=8, seed=[4]))


def logprobs(policy: Policy, examples: list[Example], rollouts: Rollouts) -> Any:
    return policy.logprobs(examples[:2], [row // 3 for row in range(6)], rollouts.tokens, rollouts.mask, 1.0)


def test_fresh_adapters_change_nothing_and_only_they_are_trained(policy: Policy, examples: list[Example]) -> None:
    fresh = load_policy(LORA)
    assert sampled(fresh, examples).texts == sampled(policy, examples).texts
    trained = {name for name, parameter in fresh.model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(".lora_" in name and ".text_model.layers." in name for name in trained)
    layers = {name.rpartition(".lora_")[0].rpartition(".")[2] for name in trained}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    again = load_policy(LORA).model.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in fresh.model.state_dict().items())


def test_the_sampler_samples_from_the_adapted_weights(
    policy: Policy, lora_policy: Policy, examples: list[Example]
) -> None:
    rollouts = sampled(lora_policy, examples)
    assert rollouts.texts != sampled(policy, examples).texts
    with torch.no_grad():
        torch.testing.assert_close(logprobs(lora_policy, examples, rollouts), rollouts.logprobs, rtol=0, atol=2e-5)
        assert (logprobs(policy, examples, rollouts) - rollouts.logprobs).abs().max() > 0.01


def test_gradients_reach_every_adapter_and_nothing_else(lora_policy: Policy, examples: list[Example]) -> None:
    logprobs(lora_policy, examples, sampled(lora_policy, examples)).sum().backward()
    for name, parameter in lora_policy.model.named_parameters():
        assert (parameter.grad is not None and parameter.grad.any()) == (".lora_" in name), name
        parameter.grad = None


def test_only_the_named_layers_get_adapters() -> None:
    source = LORA.model_copy(
        update={"lora": LoraSettings(targets=("text_model.layers.0.self_attn.q_proj", "gate_proj"))}
    )
    trained = [name for name, parameter in load_policy(source).model.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * (1 + 4)
    assert sum(".gate_proj." in name for name in trained) == 8


def test_a_frozen_vision_tower_gets_no_adapter() -> None:
    """q_proj is the name of 4 layers of the language model and of 2 of the vision tower."""
    lora = LoraSettings(targets=("q_proj",))
    counts = []
    for frozen in (False, True):
        policy = load_policy(LORA.model_copy(update={"lora": lora, "freeze_vision": frozen}))
        counts.append(len(policy.trained))
    assert counts == [2 * (4 + 2), 2 * 4]
    assert all(".text_model.layers." in name for name in policy.trained)
    for target in ("vision_model.encoder.layers.0.self_attn.q_proj", "modality_projection.proj"):
        update = {"lora": LoraSettings(targets=("q_proj", target)), "freeze_vision": True}
        with pytest.raises(ValueError, match=f"lora.targets: {target} is a layer of the vision tower .*freeze_vision"):
            load_policy(LORA.model_copy(update=update))


@pytest.mark.parametrize(
    ("target", "message"),
    [("q_prog", "no linear layer is called q_prog; choose from .*q_proj"), ("lm_head", "lm_head is the output layer")],
)
def test_an_unknown_target_is_refused(target: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"lora.targets: {message}"):
        load_policy(LORA.model_copy(update={"lora": LoraSettings(targets=(target,))}))


def test_the_reference_is_the_policy_without_its_adapters(
    policy: Policy, lora_policy: Policy, examples: list[Example]
) -> None:
    rollouts = sampled(lora_policy, examples)
    reference = make_reference(lora_policy, LORA)
    with torch.no_grad():
        before = logprobs(lora_policy, examples, rollouts)
        assert torch.equal(logprobs(reference, examples, rollouts), logprobs(policy, examples, rollouts))
        assert torch.equal(logprobs(lora_policy, examples, rollouts), before)
    trained = [name for name, parameter in lora_policy.model.named_parameters() if parameter.requires_grad]
    assert trained and all(".lora_" in name for name in trained)


def test_without_adapters_the_reference_is_a_frozen_copy_of_the_start(policy: Policy, examples: list[Example]) -> None:
    source = BuiltinModel(builtin="tiny-vlm")
    moved = Policy(copy.deepcopy(policy.model), policy.processor, policy.device)
    with torch.no_grad():
        moved.model.get_output_embeddings().weight.neg_()
    reference = make_reference(moved, source)
    rollouts = sampled(policy, examples)
    found = logprobs(reference, examples, rollouts)
    assert not found.requires_grad
    with torch.no_grad():
        assert torch.equal(found, logprobs(policy, examples, rollouts))


def save(policy: Policy, tmp_path: Path) -> Any:
    optimizer = torch.optim.AdamW([one for one in policy.model.parameters() if one.requires_grad])
    return Checkpoints(tmp_path, CheckpointSettings()).save(policy, optimizer, TrainerState(step=3))


def test_a_checkpoint_is_a_plain_model_that_does_the_same(
    lora_policy: Policy, examples: list[Example], tmp_path: Path
) -> None:
    folder = save(lora_policy, tmp_path)
    merged = load_policy(PathModel(path=str(folder)))
    assert not any("lora" in name for name, _ in merged.model.named_parameters())
    rollouts = sampled(lora_policy, examples)
    with torch.no_grad():
        again = logprobs(merged, examples, rollouts)
    torch.testing.assert_close(again, rollouts.logprobs, rtol=0, atol=5e-5)


def test_saving_changes_no_weight(lora_policy: Policy, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in lora_policy.model.state_dict().items()}
    save(lora_policy, tmp_path)
    after = lora_policy.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_resumed_run_is_equal_bit_for_bit(lora_policy: Policy, examples: list[Example], tmp_path: Path) -> None:
    resumed = load_policy(LORA, checkpoint=save(lora_policy, tmp_path))
    expected = lora_policy.model.state_dict()
    found = resumed.model.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    assert torch.equal(sampled(resumed, examples).logprobs, sampled(lora_policy, examples).logprobs)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's own business
def test_the_adapter_is_read_by_peft_itself(
    policy: Policy, lora_policy: Policy, examples: list[Example], tmp_path: Path
) -> None:
    from peft import PeftModel

    folder = save(lora_policy, tmp_path)
    theirs = PeftModel.from_pretrained(copy.deepcopy(policy.model), folder / "adapter")
    rows = policy.encode(examples[:2])
    with torch.no_grad():
        inputs = {"input_ids": rows.input_ids, "attention_mask": rows.attention_mask, **rows.images}
        assert torch.equal(theirs(**inputs).logits, lora_policy.model(**inputs).logits)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's own business
@pytest.mark.parametrize("kind", ["text", "image-text"])
def test_the_adapter_names_its_base_for_autopeft(
    kind: str, policy: Policy, text_policy: Callable[..., Any], text_examples: list[Example], tmp_path: Path
) -> None:
    from peft import AutoPeftModel, AutoPeftModelForCausalLM
    from transformers import LlamaConfig

    start = text_policy(LlamaConfig) if kind == "text" else policy
    start.save(tmp_path / "start")
    trained = adapted(PathModel(path=str(tmp_path / "start"), lora=LoraSettings(rank=2)))
    folder = save(trained, tmp_path) / "adapter"
    loader = AutoPeftModelForCausalLM if kind == "text" else AutoPeftModel
    theirs = loader.from_pretrained(folder)
    tokens = trained.encode(text_examples[:1]).input_ids
    with torch.no_grad():
        found, before = (model(input_ids=tokens).logits for model in (theirs, start.model))
        assert torch.equal(found, trained.model(input_ids=tokens).logits)
    assert not torch.equal(found, before)


def test_another_runs_adapter_is_refused(lora_policy: Policy, tmp_path: Path) -> None:
    folder = save(lora_policy, tmp_path)
    fewer = LORA.model_copy(update={"lora": LoraSettings(rank=4, targets=("layers.0.mlp.up_proj",))})
    with pytest.raises(ValueError, match=r"layers that model.lora does not select"):
        load_policy(fewer, checkpoint=folder)
    with pytest.raises(ValueError, match=r"does not fit model.lora"):
        load_policy(LORA.model_copy(update={"lora": LoraSettings(rank=8)}), checkpoint=folder)


def test_without_adapters_a_run_resumes_from_the_checkpoint(policy: Policy, tmp_path: Path) -> None:
    moved = Policy(copy.deepcopy(policy.model), policy.processor, policy.device)
    with torch.no_grad():
        moved.model.get_output_embeddings().weight.neg_()
    source = BuiltinModel(builtin="tiny-vlm", freeze_vision=True)
    resumed = load_policy(source, checkpoint=save(moved, tmp_path))
    assert torch.equal(resumed.head.weight, moved.head.weight)
    assert not all(parameter.requires_grad for parameter in resumed.model.parameters())


def test_a_frozen_vision_tower_gets_no_gradient(examples: list[Example]) -> None:
    policy = load_policy(BuiltinModel(builtin="tiny-vlm", freeze_vision=True))
    frozen = {name for name, parameter in policy.model.named_parameters() if not parameter.requires_grad}
    assert {name.split(".")[1] for name in frozen} == {"vision_model", "connector"}
    logprobs(policy, examples, sampled(policy, examples)).sum().backward()
    for name, parameter in policy.model.named_parameters():
        assert (parameter.grad is None) == (name in frozen), name


def test_a_text_model_has_no_vision_to_freeze(text_policy: Callable[..., Any], tmp_path: Path) -> None:
    from transformers import LlamaConfig

    text_policy(LlamaConfig).save(tmp_path)
    with pytest.raises(ValueError, match="freeze_vision: this model has no vision tower"):
        load_policy(PathModel(path=str(tmp_path), freeze_vision=True))


@pytest.mark.parametrize("lora", [None, LORA.lora], ids=["all weights", "lora"])
@pytest.mark.parametrize("shares", [True, False], ids=["packed", "rows"])
def test_gradient_checkpointing_changes_no_gradient(
    policy: Policy, examples: list[Example], lora: Any, shares: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"builtin": "tiny-vlm", "lora": lora, "freeze_vision": lora is None}
    rollouts = sampled(policy, examples)
    found = []
    for checkpointing in (False, True):
        one = adapted(BuiltinModel(**settings, gradient_checkpointing=checkpointing))
        monkeypatch.setattr(one, "shares_prompts", shares)
        kept: list[int] = []

        def keep(tensor: Tensor, kept: list[int] = kept) -> Tensor:
            kept.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logprobs(one, examples, rollouts).square().sum().backward()
        gradients = {name: parameter.grad for name, parameter in one.model.named_parameters()}
        found.append((gradients, sum(kept)))
    (plain, all_kept), (checkpointed, few_kept) = found
    assert few_kept < all_kept / 2  # activations that wait for the backward pass
    for name, gradient in plain.items():
        if gradient is None:
            assert checkpointed[name] is None
        else:
            torch.testing.assert_close(checkpointed[name], gradient)


def test_a_tied_head_is_saved_and_stays_tied(
    text_policy: Callable[..., Any], text_examples: list[Example], tmp_path: Path
) -> None:
    """A checkpoint's merged model of tied weights, which have two names and are stored once."""
    from transformers import Qwen2Config

    text_policy(Qwen2Config, tie_word_embeddings=True).save(tmp_path / "start")
    policy = adapted(PathModel(path=str(tmp_path / "start"), lora=LoraSettings(rank=2)))
    folder = save(policy, tmp_path)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    merged = load_policy(PathModel(path=str(folder)))
    assert merged.model.get_output_embeddings().weight is merged.model.get_input_embeddings().weight
    tokens, mask = torch.tensor([[70, 71, 72]]), torch.ones(1, 3, dtype=torch.bool)
    with torch.no_grad():
        ours, theirs = (one.logprobs(text_examples, [0], tokens, mask, 1.0) for one in (policy, merged))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


def test_in_bfloat16_frozen_layers_are_kept_so_and_compute_the_same(
    examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    half = adapted(precision="bfloat16")
    assert {p.dtype for name, p in half.model.named_parameters() if ".lora_" in name} == {torch.float32}
    layer = half.model.get_decoder().layers[0].self_attn.q_proj.base_layer
    assert layer.weight.dtype == torch.bfloat16
    assert half.head.weight.dtype == torch.float32
    monkeypatch.setattr("calibrl_core.models.placement._frozen_linear_layers", lambda model: set())
    whole = adapted(precision="bfloat16")
    rollouts = sampled(half, examples)
    with torch.no_grad():
        assert torch.equal(logprobs(half, examples, rollouts), logprobs(whole, examples, rollouts))


def test_a_checkpoint_in_bfloat16_is_in_float32_and_bit_for_bit(examples: list[Example], tmp_path: Path) -> None:
    policy = adapted(precision="bfloat16")
    folder = save(policy, tmp_path)
    merged = load_file(folder / "model.safetensors")
    assert merged["model.text_model.layers.0.self_attn.q_proj.weight"].dtype == torch.float32
    resumed = load_policy(LORA, "bfloat16", checkpoint=folder)
    assert torch.equal(sampled(resumed, examples).logprobs, sampled(policy, examples).logprobs)
    assert dataclasses.asdict(sampled(resumed, examples))["texts"] == sampled(policy, examples).texts
