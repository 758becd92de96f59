"""Models whose files do not hold exactly the tensors of their config."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, LlamaConfig, Qwen2Config, Qwen3MoeConfig

from calibrl_core.config import LoraSettings, PathModel
from calibrl_core.models.errors import ModelError
from calibrl_core.models.policy import load_policy, make_reference

FILE = "model.safetensors"
UP = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def saved(text_policy: Callable[..., Any], tmp_path: Path) -> Any:
    """Makes the folder of a tiny saved model (21 tensors, unless said otherwise)."""

    def make(config_class: Any = LlamaConfig, name: str = "model", **settings: Any) -> Any:
        text_policy(config_class, **settings).save(tmp_path / name)
        return tmp_path / name

    return make


def change(folder: Path, tensors: Any = dict, **config: Any) -> None:
    """Rewrite the tensors of a saved model, and fields of its config."""
    save_file(tensors(load_file(folder / FILE)), folder / FILE, metadata={"format": "pt"})
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | config))


def without(*names: Any) -> Callable[..., Any]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if name not in names}


def refusal(folder: Path, **options: Any) -> Any:
    with pytest.raises(ModelError) as caught:
        load_policy(PathModel(path=str(folder), **options))
    message = str(caught.value)
    assert message.startswith(f"{folder}: ")
    assert "\n" not in message
    return message.removeprefix(f"{folder}: ")


@pytest.mark.parametrize("prefix", ["base_model.model.", "module.", "_orig_mod.", "model.module."])
def test_a_prefix_of_all_names_is_refused_and_named(saved: Any, prefix: str) -> None:
    folder = saved()
    change(folder, lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()})
    message = refusal(folder)
    assert "missing: lm_head.weight, model.embed_tokens.weight, model.layers.0." in message
    assert f"unexpected: {prefix}lm_head.weight, {prefix}model.embed_tokens.weight, " in message
    assert message.count("(21 in all)") == 2
    assert message.endswith(f"save the model again with names that do not begin with {prefix}")


@pytest.mark.parametrize(
    ("tensors", "config", "found"),
    [
        (without("lm_head.weight"), {}, "missing: lm_head.weight; download"),
        (without(UP), {}, f"missing: {UP}; download"),
        (dict, {"num_hidden_layers": 3}, "missing: model.layers.2.input_layernorm.weight, "),
        (dict, {"num_hidden_layers": 1}, "unexpected: model.layers.1.input_layernorm.weight, "),
        (
            dict,
            {"intermediate_size": 48},
            "shape: model.layers.0.mlp.down_proj.weight (32, 64) for (32, 48), ",
        ),
        (lambda all: {**all, "value.weight": torch.ones(1)}, {}, "unexpected: value.weight; download"),
    ],
)
def test_other_tensors_than_the_config_asks_for_are_refused(
    saved: Any, tensors: Any, config: dict[str, Any], found: str
) -> None:
    folder = saved()
    change(folder, tensors, **config)
    assert found in refusal(folder)


def test_a_missing_tensor_of_one_expert_is_refused(saved: Any) -> None:
    folder = saved(Qwen3MoeConfig, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, head_dim=8)
    whole = load_file(folder / FILE)
    expert = "model.layers.1.mlp.experts.2."
    change(folder, without(f"{expert}up_proj.weight"))
    assert "missing or of different shapes within a layer" in refusal(folder)
    save_file(whole, folder / FILE, metadata={"format": "pt"})
    change(folder, without(*(name for name in whole if name.startswith(expert))))
    assert "of another shape: model.layers.1.mlp.experts.down_proj (3, " in refusal(folder)


def test_a_shard_without_a_tensor_of_its_index_is_refused(saved: Any, text_policy: Callable[..., Any]) -> None:
    folder = saved()
    text_policy(LlamaConfig).model.save_pretrained(folder, max_shard_size="20KB")
    (folder / FILE).unlink(missing_ok=True)
    shard = folder / json.loads((folder / f"{FILE}.index.json").read_text())["weight_map"][UP]
    save_file(without(UP)(load_file(shard)), shard, metadata={"format": "pt"})
    assert f"missing: {UP}; download" in refusal(folder)
    shard.unlink()
    assert shard.name in refusal(folder)


def test_a_damaged_or_absent_weights_file_is_refused(saved: Any) -> None:
    folder = saved()
    half = (folder / FILE).read_bytes()[:5000]
    (folder / FILE).write_bytes(half)
    assert "damaged" in refusal(folder)
    (folder / FILE).unlink()
    assert FILE in refusal(folder)


def test_a_checkpoint_and_the_base_of_an_adapter_are_checked_too(saved: Any) -> None:
    base, checkpoint = saved(), saved(name="checkpoint")
    change(checkpoint, without(UP))
    with pytest.raises(ModelError, match=f"{checkpoint}: .*missing: {UP}"):
        load_policy(PathModel(path=str(base)), checkpoint=checkpoint)
    policy = load_policy(PathModel(path=str(base)))
    change(base, without(UP))
    with pytest.raises(ModelError, match=f"{base}: .*missing: {UP}"):
        make_reference(policy, PathModel(path=str(base)))
    for saved_run in (None, checkpoint):
        with pytest.raises(ModelError, match=f"{base}: .*missing: {UP}"):
            load_policy(PathModel(path=str(base), lora=LoraSettings()), checkpoint=saved_run)


def test_harmless_differences_are_accepted(saved: Any) -> None:
    rotary = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(4) for layer in range(2)}
    llama = saved()
    change(llama, lambda tensors: tensors | rotary)
    load_policy(PathModel(path=str(llama)))
    tied = saved(Qwen2Config, name="tied", tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(tied / FILE)
    load_policy(PathModel(path=str(tied)))
    change(tied, lambda tensors: tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"] + 1})
    load_policy(PathModel(path=str(tied)))
    gpt2 = saved(GPT2Config, name="gpt2", n_embd=32, n_layer=2, n_head=4)
    masks = {f"transformer.h.0.attn.{name}": torch.ones(1) for name in ("bias", "masked_bias")}
    change(gpt2, lambda tensors: tensors | masks)
    load_policy(PathModel(path=str(gpt2)))


def write_gguf(path: Any, layers: Any, absent: Any = ()) -> Any:
    """A Llama of two layers, whose metadata count `layers`."""
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(layers)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_vocab_size(50)
    writer.add_context_length(128)
    writer.add_layer_norm_rms_eps(1e-6)
    shapes = {"token_embd": (50, 32), "output_norm": (32,), "output": (50, 32)}
    for layer in range(2):
        square = ("attn_q", "attn_k", "attn_v", "attn_output")
        block = dict.fromkeys(square, (32, 32)) | dict.fromkeys(("attn_norm", "ffn_norm"), (32,))
        block |= {"ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    for name, shape in shapes.items():
        if name not in absent:
            writer.add_tensor(f"{name}.weight", np.ones(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_that_lacks_tensors_or_has_more_is_refused(tmp_path: Path) -> None:
    lacking = write_gguf(tmp_path / "lacking.gguf", 2, absent=["blk.1.ffn_up"])
    assert f"missing: {UP}; download" in refusal(lacking)
    assert "missing: model.layers.2." in refusal(write_gguf(tmp_path / "more.gguf", 3))
    assert "unexpected: blk.1.attn_k.weight, " in refusal(write_gguf(tmp_path / "fewer.gguf", 1))


@pytest.mark.parametrize("auto_map", [{}, {"AutoConfig": "configuration.Config"}])
def test_a_model_that_needs_its_own_code_is_refused(tmp_path: Path, auto_map: dict[str, str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "unheard_of", "auto_map": auto_map}))
    (tmp_path / "configuration.py").write_text("raise SystemExit('it ran')")
    assert "code that comes with a model never runs" in refusal(tmp_path)
