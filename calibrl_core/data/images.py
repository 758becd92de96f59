"""Images in data files: found, checked, and stored in their encoded form; `image_decoding` decodes them when used."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from calibrl_core.data.image_cells import decode_base64, image_entries
from calibrl_core.data.image_decoding import check_image
from calibrl_core.data.image_files import FileBytes
from calibrl_core.data.image_kinds import TAKEN
from calibrl_core.data.schema import DataError

LONGEST_NAME = 1024  # characters; a longer text is not a path
LONGEST_SHOWN = 80  # characters of a path in a message
LARGEST_FILE = 100_000_000  # bytes of an image file


def read_images(entries: Any, folder: Path | None) -> tuple[bytes, ...]:
    """Return the images of one cell: nothing, one image, or a list. Without a folder, paths are refused.

    Raises:
        DataError: an image is missing, invalid or too large. The message has its number and path.
    """
    listed = image_entries(entries)
    found: list[bytes] = []
    for entry in listed:
        data = _read(entry, folder)
        try:
            check_image(data)
        except DataError as problem:
            raise DataError(f"{_name(entry, len(found) + 1, len(listed))} {problem}") from problem
        found.append(data)
    return tuple(found)


def _name(entry: Any, number: int, count: int) -> str:
    """Return what a message calls an image: its number among several, and its path."""
    path = entry.get("path") if isinstance(entry, dict) else entry
    name = f"image {number} of {count}" if count > 1 else "the image"
    is_path = isinstance(path, str) and "." in path and len(path) <= LONGEST_SHOWN and not path.startswith("data:")
    return f"{name} ({path!r})" if is_path else name  # base64 has no dot


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
    return entry


def _look_up(text: str, folder: Path | None) -> bytes:
    if not text.strip():
        raise DataError(f"an image is an empty text: give a path or the image ({TAKEN}), or null if there is none")
    if folder and len(text) < LONGEST_NAME:
        size = 0
        with suppress(OSError, ValueError, RuntimeError):  # too long for a name, with a NUL, a loop of links
            path = (folder / text).resolve()
            if path.is_relative_to(folder) and path.is_file():
                size = path.stat().st_size
                if size <= LARGEST_FILE:
                    return FileBytes.read(path)
        if size > LARGEST_FILE:
            raise DataError(f"image {text!r} has {size} bytes; the limit is {LARGEST_FILE}: make it smaller")
    try:
        return decode_base64(text)
    except ValueError:
        if folder is None:
            raise DataError(
                f"image {text[:80]!r} is not base64, and paths are not read here: put the image itself into the cell, "
                "as base64 or bytes"
            ) from None
        raise DataError(f"image {text[:80]!r} is neither a readable file in {folder} nor base64") from None
