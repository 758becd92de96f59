"""Converts examples to chat messages: images, the question, and the paper's instruction to reason and then answer."""

import re
from collections.abc import Iterator
from typing import Any

from calibrl_core.data.schema import Example

INSTRUCTION = "Reason in <think></think>, then answer in <answer></answer>."
IMAGE_TAG = re.compile(r"<image>\s*")


def messages(example: Example) -> list[dict[str, Any]]:
    """Return the earlier turns and the question, in the format of chat templates.

    Every image reaches the model: images that the text places by `<image>`, in this place and order, and all others
    before the question. A prompt that requests an `<answer>` itself stays as it is; to any other the INSTRUCTION is
    appended, unless the example has `asks_for_answer=False`.
    """
    turns = [*((turn.role, turn.text) for turn in example.earlier), ("user", example.question)]
    images = len(example.images)
    tags = sum(len(IMAGE_TAG.findall(text)) for _, text in turns)
    parts: list[dict[str, Any]] = []
    for role, text in turns:
        placed = min(len(IMAGE_TAG.findall(text)), images)
        images -= placed
        parts.append({"role": role, "content": list(_content(text, placed))})
    question = parts[-1]["content"]
    question[:0] = [{"type": "image"} for _ in range(len(example.images) - tags)]
    if example.asks_for_answer and not any("<answer>" in text for _, text in turns):
        question.append({"type": "text", "text": f"\n{INSTRUCTION}"})
    return parts


def _content(text: str, images: int) -> Iterator[dict[str, str]]:
    """Yield the parts of a text, with an image at each of its first `images` tags."""
    for index, piece in enumerate(IMAGE_TAG.split(text)):
        if 0 < index <= images:
            yield {"type": "image"}
        if piece:
            yield {"type": "text", "text": piece}
