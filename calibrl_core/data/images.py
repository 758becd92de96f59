"""Images in data files: found, limited in size, checked, stored in their encoded form, and decoded when used."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibrl_core.data.image_cells import decode_base64, image_entries
from calibrl_core.data.schema import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP")
MOST_PIXELS = 50_000_000  # per image; a small file can unpack to gigabytes
_JPEG = b"\xff\xd8"  # first bytes
LONGEST_NAME = 1024  # characters; a longer text is not a path


def read_images(entries: Any, folder: Path | None) -> tuple[bytes, ...]:
    """Return the images of one cell: nothing, one image, or a list. Without a folder, paths are refused.

    Raises:
        DataError: an image is missing, invalid or too large.
    """
    listed = image_entries(entries)
    return tuple(_read(entry, folder) for entry in listed)


def _read(entry: Any, folder: Path | None) -> bytes:
    """Return the bytes of an image given as path, base64 text, bytes, or `{"bytes": ..., "path": ...}` as in Parquet
    files.
    """
    if isinstance(entry, dict):
        entry = entry.get("bytes") or entry.get("path")
    if isinstance(entry, str):
        entry = _look_up(entry, folder)
    if not isinstance(entry, bytes):
        raise DataError("an image must be a path, base64 text or bytes")
    _check(entry)
    return entry


def _look_up(text: str, folder: Path | None) -> bytes:
    if folder and len(text) < LONGEST_NAME:
        with suppress(OSError, ValueError, RuntimeError):  # too long for a name, with a NUL, a loop of links
            path = (folder / text).resolve()
            if path.is_relative_to(folder) and path.is_file():
                return path.read_bytes()
    try:
        return decode_base64(text)
    except ValueError:
        if folder is None:
            raise DataError(
                f"image {text[:80]!r} is not base64, and paths are not read here: put the image itself into the cell, "
                "as base64 or bytes"
            ) from None
        raise DataError(f"image {text[:80]!r} is neither a readable file in {folder} nor base64") from None


def open_image(data: bytes) -> Image:
    """Return the decoded image.

    Raises:
        DataError: its pixels cannot be decoded, which `read_images` does not check.
    """
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        image.load()
    except Exception as error:  # decoders raise many kinds of errors on broken bytes
        raise DataError(f"an image cannot be decoded: {_reason(error)}") from error
    return image


def image_size(data: bytes) -> tuple[int, int]:
    """Return width and height in pixels of an image that `read_images` accepted. Decodes no pixel."""
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return image.size


def _check(data: bytes) -> None:
    """Check format, size and completeness, without decoding pixels: that takes ten times longer and happens when the
    image is used.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            too_large = width * height > MOST_PIXELS
            if not too_large and data.startswith(_JPEG) and not _has_end(data):
                image.load()
            elif not too_large:
                image.verify()  # of PNG: the checksums; of WebP: that all bytes are there; of JPEG: nothing
    except Exception as error:  # decoders raise many kinds of errors on broken bytes
        raise DataError(f"an image cannot be read: {_reason(error)}") from error
    if too_large:
        raise DataError(
            f"an image has {width} x {height} pixels; the limit is {MOST_PIXELS // 10**6} million: make it smaller"
        )


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    return f"it is none of {', '.join(FORMATS)}" if isinstance(error, UnidentifiedImageError) else str(error)


def _has_end(jpeg: bytes) -> bool:
    """Return if the marker of the end follows the last scan of a JPEG file. Pixels never contain these bytes."""
    return jpeg.rfind(b"\xff\xd9") > jpeg.rfind(b"\xff\xda")
