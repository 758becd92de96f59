"""How an example becomes chat messages: images, the question, and the paper's request to reason and then answer."""

import re
from typing import Any

from calibrl_core.data.schema import Example

INSTRUCTION = "Reason in <think></think>, then answer in <answer></answer>."
_IMAGE_TAG = re.compile(r"<image>\s*")


def messages(example: Example) -> list[dict[str, Any]]:
    """One user turn. Every image reaches the model: those that the question places by `<image>`, in their place, and
    those that it does not mention, before it."""
    pieces = _IMAGE_TAG.split(example.question)
    placed = min(len(pieces) - 1, len(example.images))
    content: list[dict[str, Any]] = [{"type": "image"} for _ in range(len(example.images) - placed)]
    for index, piece in enumerate(pieces):
        if 0 < index <= placed:
            content.append({"type": "image"})
        if piece:
            content.append({"type": "text", "text": piece})
    content.append({"type": "text", "text": f"\n{INSTRUCTION}"})
    return [{"role": "user", "content": content}]
