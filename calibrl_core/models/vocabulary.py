"""Tokens of a model's vocabulary that are never sampled."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

NEVER_SAMPLED = ("<image>", "<video>", "<fake_token_around_image>", "<global-img>", "<|image_pad|>", "<|video_pad|>")
MEDIA_TOKENS = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")  # in a model's config


def banned_ids(model: Any, tokenizer: Any, stop_ids: Collection[int], pad_id: int) -> Tensor:
    """Return `[V]` bool: ids that are never sampled. An image placeholder breaks the next forward pass; padding has no
    meaning; an id without a token has no text. A stop id is never banned, or no completion would end.
    """
    vocabulary = tokenizer.get_vocab()  # the ids can have gaps, and the matrix more rows
    marks = {vocabulary[mark] for mark in NEVER_SAMPLED if mark in vocabulary} | {pad_id}
    marks |= {getattr(model.config, name, None) for name in MEDIA_TOKENS}
    marks |= {*getattr(model.config, "visual_indicator_token_ids", ())}  # Ovis: embedded by its vision tower
    sampled = ({*vocabulary.values()} - marks) | {*stop_ids}
    rows = model.get_output_embeddings().weight.shape[0]
    banned = torch.ones(rows, dtype=torch.bool)
    banned[[token for token in sampled if 0 <= token < rows]] = False
    return banned
