"""Numbers of tokens of prompts with images, from the sizes of the images: no pixel is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CHECKED = 4  # prompts whose number is compared with their encoding before the others are counted


class ImageTokens:
    """Counts the tokens of prompts by `_get_num_multimodal_tokens`, which many processors of transformers have.

    Some processors count the marks around an image, others do not. The first prompts tell the difference: they are
    encoded. If it is not the same for each image of these prompts, or the processor cannot count, nothing is counted.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._reliable = hasattr(processor, "_get_num_multimodal_tokens")
        self._marks = 0  # tokens per image that the processor does not count, less its placeholder
        self._compared = 0

    def count(self, text_tokens: int, sizes: Sequence[tuple[int, int]]) -> int | None:
        """Return the number of tokens of a prompt; None if the prompt must be encoded.

        Args:
            text_tokens: tokens of the text, with one placeholder per image.
            sizes: width and height of each image in pixels, as the processor gets them.
        """
        if self._compared < CHECKED or (images := self._of_images(sizes)) is None:
            return None
        return text_tokens + images + self._marks * len(sizes)

    def compare(self, text_tokens: int, sizes: Sequence[tuple[int, int]], encoded: int) -> None:
        """Compare with an encoded prompt, whose number of tokens is `encoded`. The rest as in `count`."""
        if (images := self._of_images(sizes)) is None:
            return
        marks, rest = divmod(encoded - text_tokens - images, len(sizes))
        if rest or (self._compared and marks != self._marks):
            self._reliable = False
        self._marks = marks
        self._compared += 1

    def _of_images(self, sizes: Sequence[tuple[int, int]]) -> int | None:
        if not self._reliable:
            return None
        try:
            counted = self._processor._get_num_multimodal_tokens(image_sizes=[[size[1], size[0]] for size in sizes])
            return int(sum(counted["num_image_tokens"]))
        except Exception:  # third-party code, and not part of its public interface
            self._reliable = False
            return None
