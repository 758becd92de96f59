"""Image cells: the forms in which datasets and messages hold an image, and their base64 text."""

import ast
import base64
import binascii
import json
import re
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from calibrl_core.data.schema import DataError

# Keys of an object that hold its image: of messages (OpenAI, TRL, Qwen, Anthropic, Gemini) and of verl's files.
_KEYS = ("image", "image_url", "url", "data", "base64", "b64_json", "source", "inline_data", "file")
_REMOTE = re.compile(r"(?:https?|s3|gs|hf|ftp)://", re.IGNORECASE)
_DATA = re.compile(r"(?:data:[^,;]*)?(?P<parameters>(?:;[^,;]*)*|base64),", re.IGNORECASE)
_SPACES = b" \t\n\r\f\v"
_SHORTEST = 40  # letters of base64 of the smallest image; a shorter text without padding can be a path
_DEEPEST = 8  # objects within objects
_MOST_LITERAL = 1_000_000  # characters of a Python list; its parser needs much memory


def image_entries(cell: Any) -> list[Any]:
    """Return the images of a cell, each as a path, base64 text, bytes, or `{"bytes": ..., "path": ...}`.

    Raises:
        DataError: an image is an address on the network, or an object without an image.
    """
    if isinstance(cell, str) and cell.lstrip()[:1] in ("[", "{"):
        cell = parsed_text(cell)
    entries = cell if isinstance(cell, list | tuple) else [] if cell is None else [cell]
    return [_entry(entry, _DEEPEST) for entry in entries]


def parsed_text(text: str) -> Any:
    """Return the list or object that a text holds as JSON or as Python prints it; any other text unchanged."""
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    if len(text) <= _MOST_LITERAL:
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            return ast.literal_eval(text.strip())
    return text


def decode_base64(text: str) -> bytes:
    """Return the bytes of base64 text: with line breaks, with the letters of URLs (- and _), without padding, or as
    data: URL, whose content can also be escaped with %.

    Raises:
        ValueError: it is no base64.
    """
    found = _DATA.match(text.lstrip())
    content = text.lstrip()[found.end() :] if found else text
    if found and "base64" not in found["parameters"].lower():
        return unquote_to_bytes(content)
    try:
        raw = (unquote(content) if found else content).encode("ascii").translate(None, _SPACES)
    except UnicodeEncodeError as error:
        raise ValueError("not base64") from error
    raw = raw.replace(b"-", b"+").replace(b"_", b"/")
    if len(raw) >= _SHORTEST:
        raw = raw.rstrip(b"=") + b"=" * (-len(raw.rstrip(b"=")) % 4)
    try:
        return base64.b64decode(raw, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error


def _entry(entry: Any, depth: int) -> Any:
    if isinstance(entry, str):
        return _text_entry(entry)
    if isinstance(entry, bytearray | memoryview):
        return bytes(entry)
    if not isinstance(entry, dict) or entry.get("bytes") or entry.get("path"):
        return entry
    inner = next((entry[key] for key in _KEYS if entry.get(key)), None)
    if inner is None or depth == 0:
        keys = ", ".join(map(repr, list(entry)[:10]))
        raise DataError(
            f"an image is an object with {keys}, none of which holds an image: use `bytes`, `path`, `image` or `url`"
        )
    return _entry(inner, depth - 1)


def _text_entry(text: str) -> str:
    if _REMOTE.match(text):
        raise DataError(
            f"image {text[:80]!r} is an address, and nothing is downloaded: put the file next to the data and name its "
            "path, or put the image itself into the row, as a data: URL with base64, base64 or bytes"
        )
    return unquote(text[len("file://") :]) if text.lower().startswith("file://") else text
