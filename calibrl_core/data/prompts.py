"""How an example becomes chat messages: images, the question, and the paper's request to reason and then answer."""

import re
from collections.abc import Iterator
from typing import Any

from calibrl_core.data.schema import Example

INSTRUCTION = "Reason in <think></think>, then answer in <answer></answer>."
IMAGE_TAG = re.compile(r"<image>\s*")


def messages(example: Example) -> list[dict[str, Any]]:
    """The earlier turns and the question, as chat templates take them.

    Every image reaches the model: those that the text places by `<image>`, in their place and order, and those that
    it does not mention, before the question. A prompt that asks for an `<answer>` in its own words keeps to them;
    any other gets the INSTRUCTION at its end, unless the example says that nobody is to be asked.
    """
    turns = [*((turn.role, turn.text) for turn in example.earlier), ("user", example.question)]
    images = len(example.images)
    tags = sum(len(IMAGE_TAG.findall(text)) for _, text in turns)
    found: list[dict[str, Any]] = []
    for role, text in turns:
        placed = min(len(IMAGE_TAG.findall(text)), images)
        images -= placed
        found.append({"role": role, "content": list(_content(text, placed))})
    question = found[-1]["content"]
    question[:0] = [{"type": "image"} for _ in range(len(example.images) - tags)]
    if example.asks_for_answer and not any("<answer>" in text for _, text in turns):
        question.append({"type": "text", "text": f"\n{INSTRUCTION}"})
    return found


def _content(text: str, images: int) -> Iterator[dict[str, str]]:
    """The text's parts, with an image at each of its first `images` tags."""
    for index, piece in enumerate(IMAGE_TAG.split(text)):
        if 0 < index <= images:
            yield {"type": "image"}
        if piece:
            yield {"type": "text", "text": piece}
