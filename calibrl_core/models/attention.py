"""The attention kernels of a model, and masks in the form that they take."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from calibrl_core.models.errors import ModelError

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

FLEX = "flex_attention"  # name in transformers
PACKING = ("sdpa", "eager", FLEX)  # take any mask; flash_attention_2 takes none


def set_kernels(model: Any, name: str) -> None:
    """Let the model compute its attention by these kernels, in all its parts. `name`: as in `model.attention`.

    Raises:
        ModelError: the kernels need a GPU or a package that is missing, or the model cannot use them.
    """
    remedy = "use model.attention: auto"
    if name != "sdpa" and not torch.cuda.is_available():
        raise ModelError(f"model.attention: {name} needs a GPU, and there is none; {remedy}")
    try:
        model.set_attn_implementation(FLEX if name == "flex" else name)
    except (
        ImportError,
        ValueError,
    ) as error:  # of transformers: the package is missing, or the class does not support it
        reason = " ".join(str(error).split())
        raise ModelError(f"model.attention: {name} cannot be used here: {reason}; {remedy}") from error


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
