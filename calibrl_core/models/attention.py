"""The attention kernels of a model, and masks in the form that they take."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from calibrl_core.config import NEEDS_GPU, ModelOptions
from calibrl_core.models.errors import ModelError

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

FLEX = "flex_attention"  # name in transformers
PACKING = ("sdpa", "eager", FLEX)  # take any mask; flash_attention_2 takes none


def set_kernels(model: Any, options: ModelOptions) -> None:
    """Let the parts of a model compute their attention by the kernels that the options name.

    Raises:
        ModelError: the kernels need a GPU or a package that is missing, the model cannot use them, or it has no vision
            tower.
    """
    for field, name in options.kernels.items():
        remedy = "use model.attention: auto" if field == "attention" else f"remove model.{field}"
        if name in NEEDS_GPU and not torch.cuda.is_available():
            raise ModelError(f"model.{field}: {name} needs a GPU, and there is none; {remedy}")
        kernels: Any = FLEX if name == "flex" else name
        if field == "vision_attention":
            text = model.config.get_text_config()
            kernels = {part: kernels for part in model.config.sub_configs if getattr(model.config, part) is not text}
            if not kernels:
                raise ModelError("model.vision_attention: this model has no vision tower; remove the field")
        try:
            model.set_attn_implementation(kernels)
        # Of transformers: the package is missing, or the class does not support the kernels.
        except (ImportError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"model.{field}: {name} cannot be used here: {reason}; {remedy}") from error


def shares_prompts(config: Any, takes: Collection[str], *, takes_images: bool) -> bool:
    """Return if completions can be packed behind one prompt: every layer attends to all earlier tokens, by a mask and
    positions that the caller can pass.

    Args:
        config: of the model, in transformers' form.
        takes: names of the arguments of its forward pass.
        takes_images: images are among its inputs.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    text = config.get_text_config()
    return (
        text._attn_implementation in PACKING
        and "position_ids" in takes
        and not getattr(text, "alibi", False)
        # Attention in both directions, in images or in a whole prompt.
        and not ("token_type_ids" in takes and takes_images)
        and not getattr(text, "use_bidirectional_attention", None)
        and all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)
    )


def mask_for(config: Any, visible: Tensor) -> Tensor:
    """Convert the mask `visible` `[R, 1, queries, keys]` bool to the form that the model's attention takes, same
    shape.
    """
    if config.get_text_config()._attn_implementation == "sdpa":
        return visible
    return torch.zeros(visible.shape, device=visible.device).masked_fill(~visible, torch.finfo(torch.float32).min)


def pack_mask_for(config: Any, segments: Tensor) -> Tensor | BlockMask:
    """Return the mask of packs: a token sees the earlier tokens of its prompt and of its own completion.

    Args:
        segments: `[K, S]` long: 0 for tokens of the prompt, 1, 2, ... for those of each completion, -1 for padding.

    Returns:
        For flex, blocks of 128 x 128 tokens, of which the kernels skip those that no token sees; for other kernels
        `[K, 1, S, S]`.
    """
    if config.get_text_config()._attn_implementation == FLEX:
        return _block_mask(segments)
    size = segments.shape[1]
    seen = segments[:, None, :] == segments[:, :, None]
    seen |= segments[:, None, :] == 0
    seen &= torch.ones((size, size), dtype=torch.bool, device=segments.device).tril()
    return mask_for(config, seen[:, None])


def _block_mask(segments: Tensor) -> BlockMask:
    from torch.nn.attention.flex_attention import create_block_mask

    def seen(pack: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        of_key = segments[pack, key]
        return (key <= query) & ((of_key == 0) | (of_key == segments[pack, query]))

    packs, size = segments.shape
    return create_block_mask(seen, packs, None, size, size, device=segments.device)
