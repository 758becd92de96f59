"""Writes tiny models with random weights to folders, in the layout that models have on the hub."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tests.families.vision import Family

MARKS = [
    "<|image_pad|>",
    "<|video_pad|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image|>",
    "<|video|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
    "<video>",
    "<img>",
    "</img>",
    "<IMG_CONTEXT>",
    "<image_soft_token>",
    "<start_of_image>",
    "<end_of_image>",
    "<audio>",
    "<start_of_audio>",
    "<end_of_audio>",
    "[IMG]",
    "[IMG_BREAK]",
    "[IMG_END]",
    "<|START_OF_IMG|>",
    "<|END_OF_IMG|>",
    "<|IMG_PATCH|>",
    "<|IMG_LINE_BREAK|>",
    "TILE_GLOBAL",
    "TILE_1",
    "TILE_2",
    "TILE_3",
    "<|image_start|>",
    "<|image_end|>",
    "<|img_thumbnail|>",
    "<image_placeholder>",
    "<|patch|>",
    "<|tile_x_separator|>",
    "<|tile_y_separator|>",
    "<bos>",
    "<|python_tag|>",
    "<IMG_START>",
    "<IMG_END>",
    "<IMG_ATOM>",
    "<IMG_GRID>",
    "<IMG_COL>",
    "<IMG_ROW>",
]
TEMPLATE = (
    "{% for message in messages %}<|user|>{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "IMAGE_MARK{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def write_tokenizer(folder: Path, base: Any, named: Mapping[str, str]) -> Any:
    """Write the tokenizer of the tiny model with the marks of all families, and return it. `named`: its attributes."""
    tokenizer = copy.deepcopy(base)
    tokenizer.add_tokens(MARKS, special_tokens=True)
    tokenizer.bos_token = "<bos>"
    tokenizer.model_max_length = 4096
    tokenizer._set_model_specific_special_tokens(dict(named))
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_vision(folder: Path, base: Any, family: Family) -> None:
    """Write a model of `family`. `base`: the tiny model's tokenizer."""
    import transformers

    tokenizer = write_tokenizer(folder, base, family.named)
    ids = {name: tokenizer.convert_tokens_to_ids(tokens) for name, tokens in family.ids.items()}
    parts = copy.deepcopy(dict(family.parts))
    vocabulary = {"vocab_size": 512, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    parts["text_config"] = vocabulary | parts["text_config"]
    config = getattr(transformers, family.config)(**parts, **ids)
    write_model(folder, transformers.AutoModelForImageTextToText, config)
    write_json(folder / "preprocessor_config.json", {**family.image, "processor_class": family.processor})
    if family.options:
        write_json(folder / "processor_config.json", {**family.options, "processor_class": family.processor})
    if family.mark is not None:
        (folder / "chat_template.jinja").write_text(TEMPLATE.replace("IMAGE_MARK", family.mark))


def write_model(folder: Path, auto: Any, config: Any) -> None:
    """Write a model with random weights; no weight is 0, so that every part has an effect."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = auto.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.1)
    model.generation_config.eos_token_id = config.get_text_config().eos_token_id
    model.save_pretrained(folder)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object."""
    file.write_text(json.dumps(dict(content)))
