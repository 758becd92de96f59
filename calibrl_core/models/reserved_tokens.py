"""Special tokens of a processor for images and videos, which texts of rows must not contain."""

from __future__ import annotations

import re
from typing import Any

_FOR_MEDIA = re.compile(r"image|img|vision|video|tile|slice|boi|eoi", re.IGNORECASE)
_NAMES = ("_token", "_tag")  # ends of the attributes that hold one


def media_tokens(processor: Any) -> tuple[str, ...]:
    """Return the special tokens of an image-text processor that mark images or videos, sorted.

    They are attributes of the processor, such as `image_token`, and special tokens of its tokenizer with such a name.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    names = [name for name in dir(processor) if name.endswith(_NAMES) and _FOR_MEDIA.search(name)]
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    special = [token.content for token in added if token.special and _FOR_MEDIA.search(token.content)]
    found = [getattr(processor, name, None) for name in names] + special
    return tuple(sorted({token for token in found if isinstance(token, str) and token.strip()}))
