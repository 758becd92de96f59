"""Rows of JSON files: one object per line, one list of objects, or indented objects; also compressed.

The content decides, not the suffix. A line is not parsed here, so that an invalid one is a problem of its row only.
"""

import gzip
import io
import json
import re
import zlib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, getincrementaldecoder
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

from calibrl_core.data.schema import DataError

LONGEST_LINE = 2**25  # bytes per line or characters per entry of a list; it is in memory
MOST_VALUES = 300_000  # separators of a line or an entry; parsed values need a hundred times the memory of their text
_CHUNK = 2**16  # bytes that are read at once
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"  # first bytes
_OTHERS = {  # first bytes of files that people take for data files
    b"PK\x03\x04": "a zip archive: unpack it",
    b"BZh": "compressed by bzip2: unpack it, or use gzip or zstd",
    b"\xfd7zXZ": "compressed by xz: unpack it, or use gzip or zstd",
    b"ARROW1": "an Arrow file: write it as Parquet",
    b"\xff\xff\xff\xff": "an Arrow stream (of save_to_disk): write it as Parquet (to_parquet)",
    b"SQLite": "a database: write its rows as Parquet or JSON",
    b"version https://git-lfs": "a pointer of Git LFS, not the file: fetch it (git lfs pull)",
}
_EMPTY = f"has more than {LONGEST_LINE // 2**20} MiB of empty lines: remove them"
_SEPARATORS = re.compile(r"[\s,]*")
_SPACES = b" \t\r\n"


def json_rows(path: Path) -> Iterator[dict[str, Any] | bytes]:
    """Yield the rows of a file: lines as bytes, entries of a list and indented objects as dicts. Empty lines are no
    rows.

    Raises:
        DataError: it is another kind of file, cut off, or has too long a line.
        OSError: files.
    """
    with path.open("rb") as file:
        head = file.read(32)
        file.seek(0)
        if found := next((text for magic, text in _OTHERS.items() if head.startswith(magic)), None):
            raise DataError(f"is {found}")
        if not head.startswith((_GZIP, _ZSTD)):
            yield from _rows(file)
            return
        try:
            yield from _rows(_unpacked(file, head))
        except (EOFError, zlib.error, OSError) as error:
            raise DataError(f"is compressed, and broken or cut off ({error}): compress or copy it again") from error


def _unpacked(file: BinaryIO, head: bytes) -> io.BufferedReader:
    if head.startswith(_GZIP):
        return io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=file)))
    import pyarrow

    return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), "zstd"))


def _rows(stream: io.BufferedReader) -> Iterator[dict[str, Any] | bytes]:
    if stream.peek(len(BOM_UTF8)).startswith(BOM_UTF8):
        stream.read(len(BOM_UTF8))
    chunks = iter(lambda: stream.read(_CHUNK), b"")
    if _first_character(stream) == b"[":  # a list can be one long line
        yield from _entries(chunks)
        return
    lines = _lines(stream)
    first = next(lines, b"")
    if first.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) and b"\0" in first:
        raise DataError("is text in UTF-16: save it as UTF-8")
    yield from _entries(chain((first,), chunks)) if _begins_object(first) else chain((first,) if first else (), lines)


def _first_character(stream: io.BufferedReader) -> bytes:
    """Return the first character that is no space, and skip those before it."""
    skipped = 0
    while chunk := stream.peek(1):
        rest = chunk.lstrip(_SPACES)
        skipped += len(stream.read(len(chunk) - len(rest)))
        if rest:
            return rest[:1]
        if skipped > LONGEST_LINE:
            raise DataError(_EMPTY)
    return b""


def _lines(stream: io.BufferedReader) -> Iterator[bytes]:
    """Yield lines that are not empty."""
    skipped = 0
    while line := stream.readline(LONGEST_LINE + 1):
        if len(line) > LONGEST_LINE:
            raise DataError(f"has a line of more than {LONGEST_LINE // 2**20} MiB; use Parquet")
        if line.strip(_SPACES):
            skipped = 0
            yield line
        elif (skipped := skipped + len(line)) > LONGEST_LINE:
            raise DataError(_EMPTY)


def _begins_object(line: bytes) -> bool:
    """Return if the first line begins an indented object, and is no row itself."""
    text = line.strip(_SPACES)
    if not text.startswith(b"{") or not (text == b"{" or text.endswith((b",", b"{", b"[", b":"))):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return True
    return False


def _entries(chunks: Iterator[bytes]) -> Iterator[dict[str, Any] | bytes]:
    """Yield the entries of a list, or the objects of a text, with about one entry in memory at a time.

    Raises:
        DataError: the text is not JSON.
    """
    buffer, number, is_list = _Buffer(chunks), 0, False
    while True:
        character = buffer.next_character()
        if character == "[" and number == 0 and not is_list:
            is_list = True
            buffer.skip(1)
        elif character == "" and is_list:
            raise DataError(f"is a JSON list that is cut off after entry {number}: copy it again")
        elif character in ("", "]"):
            return
        else:
            number += 1
            entry = buffer.next_value(number)
            yield entry if isinstance(entry, dict) else json.dumps(entry).encode()


class _Buffer:
    """Text of a document, read as its values need it."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._decode = chunks, getincrementaldecoder("utf-8")().decode
        self._parse = json.JSONDecoder().raw_decode
        self._text, self._at = "", 0

    def next_character(self) -> str:
        """Return the next character that is no separator, or an empty text at the end."""
        while True:
            separators = _SEPARATORS.match(self._text, self._at)
            self._at = separators.end() if separators else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read(1):
                return ""

    def skip(self, count: int) -> None:
        """Skip characters."""
        self._at += count

    def next_value(self, number: int) -> Any:
        """Return the value that begins here, the entry `number` of the document.

        Raises:
            DataError: it is not JSON, or longer than LONGEST_LINE.
        """
        while True:
            try:
                value, end = self._parse(self._text, self._at)
            except RecursionError as error:
                raise DataError(f"entry {number} is nested too deep") from error
            except ValueError as error:
                self._read_on(number, error)
                continue
            if end < len(self._text) or isinstance(value, dict | list | str) or not self._read(1):
                self._at = end
                return value

    def _read_on(self, number: int, error: ValueError) -> None:
        """Read more of a value that is not complete; twice as much each time, so that the time stays linear."""
        missing = len(self._text) - self._at
        if sum(self._text.count(character, self._at) for character in ",[{") > MOST_VALUES:
            raise DataError(f"entry {number} has more than {MOST_VALUES} values: make it shorter, or use Parquet")
        place = error.pos if isinstance(error, json.JSONDecodeError) else len(self._text)
        cut = place >= len(self._text) - 16 or str(error).startswith("Unterminated string")
        if missing > LONGEST_LINE:
            raise DataError(f"entry {number} has more than {LONGEST_LINE // 2**20} MiB; use Parquet") from error
        if not cut or not self._read(max(missing, _CHUNK)):
            raise DataError(
                f"entry {number} of the JSON document is not JSON ({error}): fix it, or write one object per line"
            ) from error

    def _read(self, least: int) -> bool:
        """Append at least so many characters, if there are so many; return if there were some."""
        parts = [self._text[self._at :]]
        self._at = 0
        count = 0
        for chunk in self._chunks:
            try:
                parts.append(self._decode(chunk))
            except UnicodeDecodeError as error:
                raise DataError("is not text in UTF-8: save it as UTF-8") from error
            count += len(parts[-1])
            if count >= least:
                break
        self._text = "".join(parts)
        return count > 0
