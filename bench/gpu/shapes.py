"""Models with the real shapes of Qwen2.5-VL and random weights, built on the device, with a small tokenizer.

The shapes are those of the config.json of Qwen/Qwen2.5-VL-7B-Instruct and -3B-Instruct: 8,292,166,656 and
3,754,622,976 parameters.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from calibrl_core.config import ModelOptions
from calibrl_core.models.adapters import prepare_model
from calibrl_core.models.policy import Policy
from calibrl_core.models.processors import load_processor
from calibrl_core.models.tiny import build_tiny_vlm
from jobs.planning.model_shapes import ModelShape
from tests.families.build import TEMPLATE, write_json, write_tokenizer
from tests.families.vision import FAMILIES

FAMILY = FAMILIES["Qwen2.5-VL"]
PIXELS = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "tokens_per_second": 2,
}
ROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
TEXT = {"rms_norm_eps": 1e-6, "max_position_embeddings": 128_000, "rope_parameters": ROPE, "bos_token_id": None}


@dataclass(frozen=True)
class Shape:
    """Arguments of Qwen2.5-VL's config."""

    text: dict[str, Any]
    vision: dict[str, Any]
    tied: bool = False  # one matrix for embeddings and head


QWEN_7B = Shape(
    TEXT
    | {
        "vocab_size": 152_064,
        "hidden_size": 3584,
        "intermediate_size": 18_944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
    },
    VISION | {"out_hidden_size": 3584},
)
QWEN_3B = Shape(
    TEXT
    | {
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 11_008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
    },
    VISION | {"out_hidden_size": 2048},
    tied=True,
)
# For a CPU, and for the comparison of kernels: heads have the real size of 128 numbers.
SMALL = Shape(
    TEXT
    | {
        "vocab_size": 1024,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "initializer_range": 0.06,
    },
    VISION
    | {"depth": 2, "hidden_size": 128, "intermediate_size": 256, "num_heads": 2, "fullatt_block_indexes": [1]}
    | {"out_hidden_size": 256},
)


def write_processor(folder: Path) -> Any:
    """Write tokenizer, image processor and chat template of the family; return the tokenizer."""
    tokenizer = write_tokenizer(folder, build_tiny_vlm(0)[1].tokenizer, FAMILY.named)
    settings = {**FAMILY.image, "size": PIXELS, "processor_class": FAMILY.processor}
    write_json(folder / "preprocessor_config.json", settings)
    assert FAMILY.mark is not None
    (folder / "chat_template.jinja").write_text(TEMPLATE.replace("IMAGE_MARK", FAMILY.mark))
    return tokenizer


def make_config(shape: Shape, tokenizer: Any) -> Any:
    """Return the config of a shape, with the ids of the small tokenizer."""
    from transformers import Qwen2_5_VLConfig

    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return Qwen2_5_VLConfig(
        text_config={**shape.text, **ends, "tie_word_embeddings": shape.tied},
        vision_config=dict(shape.vision),
        tie_word_embeddings=shape.tied,
        **{name: tokenizer.convert_tokens_to_ids(token) for name, token in FAMILY.ids.items()},
    )


def make_model(config: Any, device: str, dtype: torch.dtype) -> Any:
    """Return a model with random weights, built on `device`: cuda, cpu, or meta for the shapes alone."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText

    auto: Any = AutoModelForCausalLM if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING else AutoModelForImageTextToText
    torch.manual_seed(0)
    with torch.device(device):
        model = auto.from_config(config, dtype=dtype)
    model.generation_config.eos_token_id = config.get_text_config().eos_token_id
    return model


def write_model(folder: Path, shape: Shape) -> None:
    """Write a small model to a folder, in the layout of the hub."""
    config = make_config(shape, write_processor(folder))
    make_model(config, "cpu", torch.float32).save_pretrained(folder)


def make_policy(shape: Shape, options: ModelOptions, device: str) -> Policy:
    """Return a policy with random weights: on a GPU built there in bfloat16, and without a copy on the host."""
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(shape, write_processor(Path(folder)))
        config.save_pretrained(folder)
        processor = load_processor(folder, config)
    model = make_model(config, device, _dtype(device))
    prepare_model(model, options)
    return Policy(model, processor, torch.device(device))


def make_text_policy(shape: Shape, device: str) -> Policy:
    """Return a policy with the language model of a shape alone, as a Qwen2."""
    from transformers import Qwen2Config

    tokenizer = build_tiny_vlm(0)[1].tokenizer
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    rope = {name: value for name, value in ROPE.items() if name != "mrope_section"}
    config = Qwen2Config(**{**shape.text, **ends, "rope_parameters": rope}, tie_word_embeddings=shape.tied)
    return Policy(make_model(config, device, _dtype(device)), tokenizer, torch.device(device))


def _dtype(device: str) -> torch.dtype:
    return torch.bfloat16 if device == "cuda" else torch.float32


def tensor_shapes(shape: Shape) -> ModelShape:
    """Return the tensors of a shape as the memory plan takes them, without their memory."""
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(shape, write_processor(Path(folder)))
    text = config.get_text_config()
    model = make_model(config, "meta", torch.bfloat16)
    return ModelShape(
        shapes={name: tuple(one.shape) for name, one in model.named_parameters()},
        source="the table of shapes",
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        kv_width=text.num_key_value_heads * text.hidden_size // text.num_attention_heads,
        intermediate=text.intermediate_size,
        vocabulary=text.vocab_size,
        longest=text.max_position_embeddings,
        takes_images=True,
    )
