"""The notices of a plan about a model, from its tensors and its config."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from calibrl.schemas import DataFacts, job_spec_adapter
from jobs.planning.model_shapes import of_folder, tiny_vlm
from jobs.planning.model_warnings import model_warnings

TENSORS = {
    "model.embed_tokens.weight": (64, 16),
    "model.layers.0.self_attn.q_proj.weight": (16, 16),
    "model.layers.0.mlp.up_proj.weight": (32, 16),
    "lm_head.weight": (64, 16),
}
VISION = {"model.vision_tower.blocks.0.attn.qkv.weight": (24, 8)}
FACTS = DataFacts(field="data", name="own", rows=9, checked=9, with_expert=0, with_images=0)


def saved(folder: Path, tensors: dict[str, tuple[int, int]], **config: Any) -> dict[str, Any]:
    save_file({name: np.zeros(shape, np.float32) for name, shape in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "max_position_embeddings": 512, **config}))
    return {"path": str(folder)}


def notices(model: dict[str, Any], images: int = 0, **changes: Any) -> list[tuple[str, str]]:
    fixed = {"kind": "train", "name": "x", "data": {"path": "/own.jsonl"}, "steps": 1}
    rollout = {"max_completion_tokens": 256}
    spec = job_spec_adapter.validate_python({**fixed, "rollout": rollout, "model": model, **changes})
    shape = of_folder(Path(model["path"])) if "path" in model else tiny_vlm()
    facts = FACTS.model_copy(update={"with_images": images})
    found = model_warnings(spec, "model", spec.model, shape, [facts])  # type: ignore[union-attr]
    return [(notice.field, notice.message) for notice in found]


def test_a_text_model_has_no_images_and_no_vision_tower(tmp_path: Path) -> None:
    text = saved(tmp_path, TENSORS)
    assert notices(text | {"freeze_vision": True}, images=7) == [
        ("data", "7 of 9 rows have images, and model is a text model: choose an image-text model"),
        ("model.freeze_vision", "the trainer refuses this: the model has no vision tower; remove freeze_vision"),
    ]
    assert notices(text) == []


@pytest.mark.parametrize("config", [{}, {"vision_config": {}}])
def test_a_vision_tower_is_in_the_tensors_or_in_the_config(tmp_path: Path, config: dict[str, Any]) -> None:
    model = saved(tmp_path, TENSORS if config else TENSORS | VISION, **config)
    assert notices(model | {"freeze_vision": True}, images=7) == []


def test_prompts_and_completions_share_the_positions(tmp_path: Path) -> None:
    """512 positions: 256 for the prompt and 256 for the completion fit, one more does not."""
    model = saved(tmp_path, TENSORS)
    assert notices(model, prompts={"max_tokens": 256}) == []
    ((field, message),) = notices(model, prompts={"max_tokens": 257})
    assert field == "rollout.max_completion_tokens"
    assert message.startswith("a prompt of 257 tokens (prompts.max_tokens) with a completion of 256 tokens exceeds")
    validation = {"data": {"path": "/own.jsonl"}, "max_completion_tokens": 512}
    ((field, message),) = notices({"builtin": "tiny-vlm"}, validation=validation)
    assert field == "validation.max_completion_tokens"
    assert message.startswith("any prompt with a completion of 512 tokens exceeds the 512 positions of the model")


def test_targets_of_adapters_must_be_names_of_layers(tmp_path: Path) -> None:
    model = saved(tmp_path, TENSORS | VISION)
    lora = {"targets": ["q_proj", "mlp.up_proj", "qkv"]}
    assert notices(model | {"lora": lora}) == []
    assert notices(model | {"lora": lora, "freeze_vision": True}) == [
        (
            "model.lora.targets",
            "the trainer refuses this: no linear layer that can be adapted is called qkv; choose from q_proj, up_proj",
        )
    ]
    ((_, message),) = notices(model | {"lora": {"targets": ["proj"]}})
    assert message.endswith("is called proj; choose from q_proj, qkv, up_proj")
