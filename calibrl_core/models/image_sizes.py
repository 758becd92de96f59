"""Sizes of images that a model's image processor refuses, found without decoding any image of the data."""

from __future__ import annotations

import time
from typing import Any

from PIL import Image

ERRORS = (ValueError, ArithmeticError, LookupError, TypeError)  # of processors that refuse an image
_USUAL_SIDE, _USUAL_RATIO = 28, 8  # smaller sides and larger ratios are tried
_LONGEST_TRIAL = 60.0  # seconds for all trials; sizes beyond are found at their step


class ImageSizes:
    """Lets an image processor process a blank image of each doubtful size: one for which it has no number of patches,
    or an unusual one if it has no such method.
    """

    def __init__(self, processor: Any) -> None:
        """processor: of the model; a tokenizer refuses no size."""
        self._images = getattr(processor, "image_processor", None)
        self._counts = hasattr(self._images, "get_number_of_image_patches")
        self._refusals: dict[tuple[int, int], str | None] = {}
        self._seconds = 0.0

    def refusal(self, width: int, height: int) -> str | None:
        """Return why the processor refuses an image of this size in pixels, or None."""
        size = (width, height)
        if size not in self._refusals:
            doubtful = not self._has_patches(size) if self._counts else _unusual(*size)
            self._refusals[size] = self._tried(size) if doubtful else None
        return self._refusals[size]

    def _has_patches(self, size: tuple[int, int]) -> bool:
        assert self._images is not None
        try:
            self._images.get_number_of_image_patches(size[1], size[0], {})
        except Exception:  # third-party code: not every version of this method works
            return False
        return True

    def _tried(self, size: tuple[int, int]) -> str | None:
        if self._images is None or self._seconds > _LONGEST_TRIAL:
            return None
        started = time.monotonic()
        try:
            self._images(images=[Image.new("RGB", size)], return_tensors="pt")
        except ERRORS as error:
            return size_refusal([size], error)
        finally:
            self._seconds += time.monotonic() - started
        self._counts = False  # the number of patches says nothing
        return None


def size_refusal(sizes: list[tuple[int, int]], error: Exception) -> str:
    """Return that a processor refused images of these sizes, with its error and the remedy."""
    listed = ", ".join(f"{width} x {height}" for width, height in sizes[:10])
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"the model's image processor refuses an image of {listed} pixels ({reason}): crop or resize it"


def _unusual(width: int, height: int) -> bool:
    return min(width, height) < _USUAL_SIDE or max(width, height) > _USUAL_RATIO * min(width, height)
