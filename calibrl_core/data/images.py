"""Images as data files carry them: looked up, bounded and checked, and kept as the encoded bytes that they are."""

import base64
import io
from contextlib import suppress
from pathlib import Path
from typing import Any

from calibrl_core.data.schema import DataError

FORMATS = ("PNG", "JPEG", "WEBP")
MOST_PIXELS = 50_000_000  # of one image; a small file can unpack to gigabytes
LONGEST_NAME = 1024  # characters; a longer text is no path


def read_images(entries: Any, folder: Path | None) -> tuple[bytes, ...]:
    """The images of one cell: nothing, one image, or a list of them; no paths without a folder. Raises DataError."""
    listed = entries if isinstance(entries, list) else [] if entries is None else [entries]
    return tuple(_read(entry, folder) for entry in listed)


def _read(entry: Any, folder: Path | None) -> bytes:
    """The file behind a path, base64 text, bytes, or `{"bytes": ..., "path": ...}` as Parquet files carry it."""
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
        return base64.b64decode(text.rpartition("base64,")[2], validate=True)
    except ValueError:
        if folder is None:
            raise DataError(
                f"image {text[:80]!r} is no base64, and a path can't be followed here: put the image itself there, "
                "as base64 or bytes"
            ) from None
        raise DataError(f"image {text[:80]!r} is neither a readable file in {folder} nor base64") from None


def _check(data: bytes) -> None:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size  # of the header: nothing is decoded yet
            too_large = width * height > MOST_PIXELS
            if not too_large:
                image.verify()
        if not too_large:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                image.load()  # verify() looks at no pixels, and uses the image up
    except Exception as error:  # on broken bytes a decoder raises what it likes
        raise DataError(f"an image can't be read: {error}") from error
    if too_large:
        raise DataError(
            f"an image has {width} x {height} pixels; {MOST_PIXELS // 10**6} million at most, make it smaller"
        )
