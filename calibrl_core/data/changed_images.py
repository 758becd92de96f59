"""Examples with changed images, which show whether a model looks at its images.

- blank: a grey image of the same size.
- shuffle: the same image with its 4 x 4 tiles in another order.
- swap: the image of another example.

Each change depends on the examples only. Examples without images stay as they are. An example stays too if its image
has no tiles, or if all examples have the same images.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from calibrl_core.data.image_decoding import image_size, open_image
from calibrl_core.data.schema import Example
from calibrl_core.data.views import ExampleView
from calibrl_core.settings.image_changes import ImageChange

if TYPE_CHECKING:
    from PIL.Image import Image

_GREY = 127
_TILES = 4  # per side


class ChangedImages(ExampleView):
    """The same examples, with their images changed in one way."""

    def __init__(self, examples: Sequence[Example], change: ImageChange) -> None:
        self._examples, self._change = examples, change

    def __len__(self) -> int:
        return len(self._examples)

    def _one(self, place: int) -> Example:
        example = self._examples[place]
        if not example.images:
            return example
        if self._change == "swap":
            others = self._others(place)
            images = [others[number % len(others)] for number in range(len(example.images))]
        else:
            images = [(_blank if self._change == "blank" else _shuffled)(image) for image in example.images]
        return replace(example, images=tuple(images))

    def _others(self, place: int) -> Sequence[bytes]:
        """Return the images of the next example that has other ones; its own if none has."""
        own, count = self._examples[place].images, len(self._examples)
        following = (self._examples[(place + distance) % count].images for distance in range(1, count))
        return next((images for images in following if images and list(images) != list(own)), own)


def _blank(data: bytes) -> bytes:
    from PIL import Image

    return _as_png(Image.new("RGB", image_size(data), (_GREY, _GREY, _GREY)))


def _shuffled(data: bytes) -> bytes:
    from PIL import Image

    pixels = np.asarray(open_image(data)).copy()  # [height, width, 3]
    height, width = pixels.shape[0] // _TILES, pixels.shape[1] // _TILES
    if not height or not width:
        return data
    places = [(row * height, column * width) for row in range(_TILES) for column in range(_TILES)]
    tiles = [pixels[top : top + height, left : left + width].copy() for top, left in places]
    order = np.random.default_rng(zlib.crc32(data)).permutation(len(tiles))
    for (top, left), tile in zip(places, order.tolist(), strict=True):
        pixels[top : top + height, left : left + width] = tiles[tile]
    return _as_png(Image.fromarray(pixels))


def _as_png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
