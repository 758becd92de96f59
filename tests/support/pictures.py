"""Images as files."""

import io

from PIL import Image


def png(colour: str = "red", size: int = 32) -> bytes:
    """Return a square PNG file of one colour, `size` pixels wide."""
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, "PNG")
    return buffer.getvalue()
