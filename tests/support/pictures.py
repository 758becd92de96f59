"""Images as files."""

import io
import random

from PIL import Image


def png(colour: str = "red", size: int = 32) -> bytes:
    """Return a square PNG file of one colour, `size` pixels wide."""
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, "PNG")
    return buffer.getvalue()


def noise(size: int) -> bytes:
    """Return a square PNG file that cannot be compressed, `size` pixels wide: three bytes per pixel."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", (size, size), random.Random(size).randbytes(3 * size * size)).save(
        buffer, "PNG", compress_level=0
    )
    return buffer.getvalue()
