"""The parts of a memory estimate that are exact, against models of transformers; and the rest by hand."""

import json
import math
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from calibrl.schemas import MemoryPart, MemoryPlan, TrainSpec, job_spec_adapter
from calibrl_core.config import BuiltinModel, LoraSettings, Precision
from calibrl_core.models.adapters import prepare_model
from calibrl_core.models.policy import load_policy
from calibrl_core.models.quantisation import quantised_layers
from calibrl_core.models.tiny import build_tiny_vlm
from jobs.planning.memory import by_phase, estimate
from jobs.planning.model_shapes import ModelShape, UnknownShape, of_folder, tiny_vlm
from jobs.planning.remedies import remedies

SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 256,
}
MODELS = [
    (LlamaConfig(**SIZES, tie_word_embeddings=True), LlamaForCausalLM),  # as SmolLM2
    (LlamaConfig(**SIZES, tie_word_embeddings=False, attention_bias=True, mlp_bias=True), LlamaForCausalLM),
    (Qwen2Config(**SIZES, tie_word_embeddings=False), Qwen2ForCausalLM),
    (Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True), Qwen3ForCausalLM),
]


def plan(shape: ModelShape, model: dict[str, Any] | None = None, **changes: Any) -> MemoryPlan:
    spec = {
        "kind": "train",
        "name": "a job",
        "model": {"builtin": "tiny-vlm", **(model or {})},
        "data": {"builtin": "digits"},
        "steps": 5,
        "prompts_per_step": 8,
        "rollout": {"group_size": 8, "max_completion_tokens": 64},
    }
    parsed = job_spec_adapter.validate_python(spec | changes)
    return estimate(parsed, shape, parsed.model)  # type: ignore[union-attr]


def parts(found: MemoryPlan) -> dict[str, int]:
    return {part.name: part.bytes for part in found.parts}


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("config", "kind"), MODELS)
def test_the_weights_are_those_of_the_real_model(config: Any, kind: Any, tmp_path: Path) -> None:
    model = kind(config)
    model.save_pretrained(tmp_path)
    by_header = of_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    by_config = of_folder(tmp_path)
    for shape in (by_header, by_config):
        assert parts(plan(shape))["weights"] == 4 * count(model)
        assert (shape.layers, shape.hidden, shape.intermediate, shape.vocabulary) == (3, 48, 80, 100)
        assert (shape.kv_width, shape.longest) == (
            config.num_key_value_heads * (getattr(config, "head_dim", None) or 8),
            256,
        )
    assert (by_header.source, by_config.source) == ("its safetensors' headers", "config.json")


def test_a_model_in_several_files(tmp_path: Path) -> None:
    config, kind = MODELS[0]
    model = kind(config)
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert of_folder(tmp_path).parameters == count(model)


def test_the_built_in_model_is_as_it_is_made(tmp_path: Path) -> None:
    model, _ = build_tiny_vlm(0)
    shape = tiny_vlm()
    assert shape.parameters == count(model)
    model.save_pretrained(tmp_path)
    saved = of_folder(tmp_path)
    for name in ("parameters", "vision", "layers", "hidden", "kv_width", "intermediate", "vocabulary"):
        assert getattr(saved, name) == getattr(shape, name), name


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"freeze_vision": True},
        {"lora": {"rank": 4}},
        {"lora": {"rank": 4, "dora": True, "targets": ["q_proj", "down_proj"]}},
    ],
)
def test_the_planned_parameters_are_those_the_trainer_trains(options: dict[str, Any], tmp_path: Path) -> None:
    model, _ = build_tiny_vlm(0)
    model.save_pretrained(tmp_path)
    source = BuiltinModel(builtin="tiny-vlm", **options)
    assert source.lora is None or isinstance(source.lora, LoraSettings)
    prepare_model(model, source)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    found = plan(of_folder(tmp_path), options)
    assert found.trained == trained
    assert parts(found)["weights"] == 4 * count(model)
    assert (parts(found)["gradients"], parts(found)["optimizer"]) == (4 * trained, 8 * trained)
    small = plan(of_folder(tmp_path), options, optimizer={"kind": "adamw_8bit"})
    assert parts(small)["optimizer"] == 2 * trained + 2 * 4 * trained // 256  # codes, and a scale per 256
    assert parts(found)["second gradient"] == 4 * trained  # of the guidance, beside the policy's
    never = plan(of_folder(tmp_path), options, diagnostics={"gradients_every": None})
    assert "second gradient" not in parts(never)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="calibrl[quantization] is not installed")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_quantised_weights_are_those_of_the_trainer(precision: Precision, tmp_path: Path) -> None:
    policy = load_policy(BuiltinModel(builtin="tiny-vlm", lora=LoraSettings(rank=4), quantization="nf4"), precision)
    load_policy(BuiltinModel(builtin="tiny-vlm")).save(tmp_path)
    codes = sum(layer.nbytes for layer in quantised_layers(policy.model).values())
    others = sum(parameter.nbytes for parameter in policy.model.parameters())
    options = {"lora": {"rank": 4}, "quantization": "nf4"}
    found = plan(of_folder(tmp_path), options, precision=precision)
    assert parts(found)["weights"] == pytest.approx(codes + others, rel=3e-3)
    quantised = 4 * (4 * 128 * 128 + 3 * 128 * 384)
    assert codes == pytest.approx(quantised * 4.127 / 8, rel=1e-3)
    assert parts(found)["dequantised layer"] == quantised  # 4 bytes of each of a quarter of them


def test_the_other_parts_by_hand() -> None:
    found = plan(tiny_vlm())
    row = 512  # a prompt of 1024 and 64 tokens, but the model has 512 positions
    assert parts(found)["keys and values"] == 64 * row * 4 * 2 * 128 * 4
    assert parts(found)["next tokens"] == 64 * 384 * 8
    tokens = 64 * row  # 32,768: just what a micro-batch may have
    assert parts(found)["activations"] == tokens * 4 * 4 * (7 * 128 + 3 * 128 + 4 * 384)
    assert parts(found)["logits"] == 12 * 64 * 64 * 384  # of completion tokens only
    bounded = plan(tiny_vlm(), {"gradient_checkpointing": True}, prompts={"max_tokens": 36}, micro_batch_rows=2)
    layer = 7 * 128 + 3 * 128 + 4 * 384
    assert parts(bounded)["activations"] == 2 * 100 * 4 * 4 * 128
    assert parts(bounded)["layer computed again"] == 2 * 100 * 4 * layer > 12 * 2 * 64 * 384
    assert "logits" not in parts(bounded)
    assert parts(bounded)["keys and values"] == 64 * 100 * 4 * 2 * 128 * 4


def test_on_gpus_weights_are_cast_and_can_be_shared_out() -> None:
    alone = plan(tiny_vlm(), resources={"gpus": 1})
    shared = plan(tiny_vlm(), resources={"gpus": 4}, parallel="fsdp")
    assert alone.on == "GPU"
    assert "weights in bfloat16" in parts(alone)
    for name in ("weights", "optimizer", "gradients"):
        assert parts(shared)[name] == parts(alone)[name] // 4
    assert parts(plan(tiny_vlm(), resources={"gpus": 4})) == parts(alone)  # ddp: each holds all
    with_reference = plan(tiny_vlm(), algorithm={"type": "grpo", "kl_coef": 0.1})
    assert parts(with_reference)["reference"] == 4 * tiny_vlm().parameters


def test_the_phases_of_a_process_with_sharded_weights() -> None:
    shape = tiny_vlm()
    layer = 4 * 128 * 128 + 3 * 128 * 384 + 2 * 128  # attention, inner layers, two norms
    outside = 2 * 384 * 128 + 128 + 408_192  # embeddings and head, last norm, vision
    front = 384 * 128 + 408_192  # embeddings and vision
    assert (shape.layers, shape.in_layers, shape.parameters) == (4, 4 * layer, 4 * layer + outside)
    algorithm = {"type": "grpo", "kl_coef": 0.1}
    found = plan(shape, resources={"gpus": 2}, parallel="fsdp", algorithm=algorithm)
    whole = {part.phases[0]: part.bytes for part in found.parts if part.name == "whole weights"}
    assert whole == {
        "load": 4 * (2 * front + layer + 128),  # the last norm is there all the time
        "rollout": 2 * 4 * layer + 4 * outside,  # layers in bfloat16
        "update": 2 * layer + 4 * 384 * 128 + 4 * 128,  # while the logits are there
        "save": 4 * 408_192,
    }
    assert parts(found)["whole reference"] == whole["rollout"]
    assert parts(found)["whole gradients"] == 8 * 384 * 128 + 4 * 128
    shares = (4 + 4 + 8) * shape.parameters // 2 + parts(found)["reference"]
    assert found.phases["rollout"] == sum(part.bytes for part in found.parts if "rollout" in part.phases)
    assert found.phases["save"] == (1 << 30) + shares + whole["save"]
    assert found.bytes == max(found.phases.values())


def test_the_host_of_a_gpu_holds_a_whole_model_only_without_shards() -> None:
    shape = tiny_vlm()
    whole = 4 * shape.parameters
    alone, shared = (plan(shape, resources={"gpus": 2}, parallel=value) for value in ("ddp", "fsdp"))
    assert alone.host_bytes == shared.host_bytes == 2_000_000_000 + 3 * whole  # a checkpoint that waits
    assert plan(shape).host_bytes == plan(shape).bytes
    large = replace(shape, shapes={f"model.layers.{number}.x": (10**4, 10**4) for number in range(10)})
    few = {"resources": {"gpus": 2}, "checkpoints": {"host_gigabytes": 1}}
    alone, shared = (plan(large, parallel=value, **few) for value in ("ddp", "fsdp"))
    assert alone.host_bytes == 2 * 10**9 + 4 * 10**9  # the load
    assert shared.host_bytes == 2 * 10**9 + 10**9 + 2 * 10**9 + 4 * 10**8  # waiting, a file, the largest tensor


def test_on_a_cpu_a_checkpoint_waits_beside_every_phase_of_a_step() -> None:
    shape = tiny_vlm()
    beside, waited = (plan(shape, checkpoints={"host_gigabytes": size}) for size in (16, 0))
    assert parts(beside)["checkpoint to write"] == 12 * shape.parameters
    for phase in ("rollout", "update", "save"):
        assert beside.phases[phase] - waited.phases[phase] == 12 * shape.parameters
    assert beside.phases["load"] == waited.phases["load"]


def test_a_process_holds_the_largest_of_its_phases() -> None:
    sizes = [(["load", "update"], 5), (["rollout"], 30), (["update"], 20), (["update", "save"], 1)]
    found = [MemoryPart.model_validate({"name": "x", "bytes": n, "phases": when, "formula": ""}) for when, n in sizes]
    assert by_phase(found) == {"load": 5, "rollout": 30, "reference": 0, "update": 26, "save": 1}


def test_the_cheapest_setting_that_fits_is_named() -> None:
    shape = tiny_vlm()
    spec = job_spec_adapter.validate_python(
        {
            "kind": "train",
            "name": "a job",
            "model": {"builtin": "tiny-vlm"},
            "data": {"builtin": "digits"},
            "steps": 5,
            "algorithm": {"type": "grpo"},
            "resources": {"gpus": 1},
        }
    )
    assert isinstance(spec, TrainSpec)

    def needed(limit: int) -> list[str]:
        return remedies(spec, lambda other: estimate(other, shape, other.model).bytes <= limit)

    def size(**changes: Any) -> int:
        changed = spec.model_copy(update=changes)
        return estimate(changed, shape, changed.model).bytes

    recomputing = spec.model.model_copy(update={"gradient_checkpointing": True})
    assert size(model=recomputing) < size()
    assert needed(size(model=recomputing)) == ["model.gradient_checkpointing: true"]
    decoded = spec.rollout.model_copy(update={"batch_tokens": 16_384})
    together = size(model=recomputing, micro_batch_tokens=4096, rollout=decoded)
    smaller = ["micro_batch_tokens: 4096", "rollout.batch_tokens: 16384"]
    assert needed(together) == ["model.gradient_checkpointing: true", *smaller]
    assert needed(1) == []


def test_weights_of_4_bits_are_a_remedy_where_they_work() -> None:
    def found(**changes: Any) -> list[str]:
        spec = job_spec_adapter.validate_python(
            {"kind": "train", "name": "a job", "data": {"builtin": "digits"}, "steps": 5, **changes}
            | {"model": {"builtin": "tiny-vlm", **changes.get("model", {})}}
        )
        assert isinstance(spec, TrainSpec)
        return remedies(spec, lambda other: other.model.quantization is not None)

    assert found() == ["model: {lora: {rank: 16}, quantization: nf4}"]
    assert found(model={"lora": {}}) == ["model.quantization: nf4"]
    assert found(rollout={"engine": "vllm_server"}) == []
    assert found(resources={"gpus": 2}) == []


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "config.json"),
        ({"config.json": b"[]"}, "is not a JSON object"),
        ({"config.json": b"{}", "model.safetensors": b"\xff" * 20}, "is not a safetensors file"),
        ({"config.json": b"{}", "model.safetensors": b"\x02" + b"\0" * 7 + b"{}"}, "is not sufficient for"),
        ({"config.json": b"{}", "model.safetensors.index.json": b'{"weight_map": {"a": "../../etc/x"}}'}, "x'"),
        ({"config.json": b'{"model_type": "llama"}'}, "hidden_size"),
        ({"config.json": json.dumps(SIZES | {"model_type": "llama", "num_hidden_layers": 10**9}).encode()}, "1000"),
    ],
)
def test_an_unreadable_model_folder_is_reported(files: dict[str, bytes], says: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UnknownShape, match=says):
        of_folder(tmp_path)


def test_an_evaluation_in_bfloat16_holds_no_float32_masters(tmp_path: Path) -> None:
    config, kind = MODELS[0]
    kind(config).save_pretrained(tmp_path)
    shape = of_folder(tmp_path)
    spec = {"kind": "evaluate", "name": "x", "models": [{"builtin": "tiny-vlm"}], "data": [{"builtin": "digits"}]}

    def weights(precision: str) -> int:
        parsed = job_spec_adapter.validate_python({**spec, "precision": precision})
        return parts(estimate(parsed, shape, parsed.models[0]))["weights"]  # type: ignore[union-attr]

    linear = sum(math.prod(size) for size in shape.linear.values())
    assert weights("float32") == 4 * shape.parameters
    assert weights("bfloat16") == 4 * shape.parameters - 2 * linear


def test_shards_of_a_copy_and_in_host_memory() -> None:
    shape = tiny_vlm()
    four, two, host = (
        plan(shape, resources={"gpus": 4}, parallel="fsdp", precision="float32", **changes)
        for changes in ({}, {"shard_size": 2}, {"cpu_offload": True})
    )
    for name, size in (("weights", 4), ("optimizer", 8), ("gradients", 4)):
        assert parts(four)[name] == size * shape.parameters // 4
        assert parts(two)[name] == size * shape.parameters // 2
        assert name not in parts(host)
    moved = sum(parts(four)[name] for name in ("weights", "optimizer", "gradients", "second gradient"))
    assert host.host_bytes == four.host_bytes + moved
    assert host.phases["update"] == four.phases["update"] - moved


def test_offloading_saves_nothing_without_a_gpu() -> None:
    common: dict[str, Any] = {"resources": {"machines": 2}, "parallel": "fsdp"}
    plain, offloaded = (plan(tiny_vlm(), **common, cpu_offload=choice) for choice in (False, True))
    assert offloaded == plain


def test_servers_apart_need_no_memory_of_the_trainers_gpus() -> None:
    shape = tiny_vlm()
    rollout = {"engine": "vllm_server", "group_size": 8, "max_completion_tokens": 64}
    common: dict[str, Any] = {"parallel": "fsdp", "precision": "float32", "resources": {"gpus": 6}}
    beside, apart = (plan(shape, **common, rollout=rollout | more) for more in ({}, {"server_gpus": 2}))
    assert parts(beside)["weights"] == 4 * shape.parameters // 6
    assert parts(apart)["weights"] == 4 * shape.parameters // 4
    served = {"keys and values", "next tokens", "vLLM's weights"}
    assert served <= parts(beside).keys()
    assert not served & parts(apart).keys()
    ahead = plan(shape, **common, rollout=rollout | {"max_staleness": 1})
    (copy,) = [part for part in ahead.parts if part.name == "vLLM's weights"]
    assert "update" in copy.phases  # no sleep
