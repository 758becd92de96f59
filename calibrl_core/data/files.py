"""Examples from a `.jsonl` or `.parquet` file. Without torch, so that the API can check a file."""

import base64
import io
import json
import os.path
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from calibrl_core.data.schema import DataError, Example, FileData

SHOWN = 20  # problems listed; the rest are counted
# What a submission waits for; the trainer checks the rest.
CHECKED_ROWS = 2_000
CHECKED_IMAGE_BYTES = 100_000_000


def load(source: FileData) -> list[Example]:
    """The file's examples. Raises DataError with every bad row at once."""
    examples: list[Example] = []
    problems: list[str] = []
    for found in _examples(source):
        if isinstance(found, Example):
            examples.append(found)
        else:
            problems.append(found)
    if problems:
        raise DataError(_listed(problems))
    if not examples:
        raise DataError(f"{source.path} has no rows")
    return examples


def check_source(source: FileData, *, needs_experts: bool) -> list[str]:
    """Sentences on what keeps this file from being trained on, as far as its first rows tell; empty: nothing does.

    Reads up to CHECKED_ROWS rows or CHECKED_IMAGE_BYTES of images, and holds no more than a batch of them in memory.
    """
    path = Path(source.path)
    if path.suffix not in (".jsonl", ".parquet"):
        return [f"{source.path} is neither .jsonl nor .parquet; convert it to one of them"]
    if not os.path.isfile(path):  # noqa: PTH113 - False, too, where the name is too long or its folder is closed to us
        return [f"{source.path} does not exist on this machine; give the absolute path of a file that workers can read"]
    problems: list[str] = []
    rows = image_bytes = experts = 0
    for found in _examples(source):
        if rows >= CHECKED_ROWS or image_bytes >= CHECKED_IMAGE_BYTES:
            needs_experts = False  # a later row may have one
            break
        rows += 1
        if isinstance(found, Example):
            image_bytes += sum(map(len, found.images))
            experts += bool(found.expert)
        else:
            problems.append(found)
    if problems:
        return [_listed(problems)]
    if not rows:
        return [f"{source.path} has no rows"]
    if needs_experts and not experts:
        return [
            f"no row of {source.path} has an expert in column {source.columns.expert!r}, and this algorithm needs "
            "experts; add them, name their column in data.columns.expert, or choose {type: grpo}"
        ]
    return []


def _listed(problems: list[str]) -> str:
    more = f" (and {len(problems) - SHOWN} more)" if len(problems) > SHOWN else ""
    return "; ".join(problems[:SHOWN]) + more


def _examples(source: FileData) -> Iterator[Example | str]:
    """Each row's example or what is wrong with it; at last, what keeps the rest from being read."""
    parquet = source.path.endswith(".parquet")
    rows: Iterator[bytes | dict[str, Any]] = _parquet_rows(source.path) if parquet else _jsonl_rows(source.path)
    try:
        for number, row in enumerate(islice(rows, source.rows), start=1):
            try:
                yield _example(source, number, row)
            except DataError as problem:
                yield f"{source.path}, row {number}: {problem}"
    except DataError as problem:
        yield str(problem)
    except OSError as error:
        yield f"{source.path} can't be read: {error.strerror or error}"


def _jsonl_rows(path: str) -> Iterator[bytes]:
    with Path(path).open("rb") as file:
        yield from file


def _parquet_rows(path: str) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=32):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        raise DataError(f"{path} is not a Parquet file that can be read: {error}") from error


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the line is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise DataError("the line is not an object with columns")
    return row


def _example(source: FileData, number: int, row: bytes | dict[str, Any]) -> Example:
    if isinstance(row, bytes):
        row = _parsed(row)
    columns = source.columns
    question, answer = row.get(columns.question), row.get(columns.answer)
    expert = row.get(columns.expert)
    if not isinstance(question, str) or not question:
        raise DataError(f"column {columns.question!r} must hold the question's text")
    if isinstance(answer, bool) or not isinstance(answer, str | int | float) or answer == "":
        raise DataError(f"column {columns.answer!r} must hold the answer, text or a number")
    if expert is not None and not isinstance(expert, str):
        raise DataError(f"column {columns.expert!r} must hold text or nothing")
    images = row.get(columns.images)
    entries = images if isinstance(images, list) else [] if images is None else [images]
    folder = Path(source.path).resolve().parent
    return Example(
        id=f"{source.name}/{number}",
        question=question,
        answer=str(answer),
        images=tuple(_image(entry, folder) for entry in entries),
        expert=expert or None,
    )


def _image(entry: Any, folder: Path) -> bytes:
    """The PNG or JPEG behind a path, base64 text, bytes, or `{"bytes": ...}` as Parquet files carry it."""
    if isinstance(entry, dict):
        entry = entry.get("bytes") or entry.get("path")
    if isinstance(entry, str):
        entry = _read_image(entry, folder)
    if not isinstance(entry, bytes):
        raise DataError("an image must be a path, base64 text or bytes")
    _check_image(entry)
    return entry


def _read_image(text: str, folder: Path) -> bytes:
    if len(text) < 1024:
        with suppress(OSError, ValueError, RuntimeError):  # too long for a name, with a NUL, a loop of links
            path = (folder / text).resolve()
            if path.is_relative_to(folder) and path.is_file():
                return path.read_bytes()
    try:
        return base64.b64decode(text.rpartition("base64,")[2], validate=True)
    except ValueError:
        raise DataError(f"image {text[:80]!r} is neither a readable file in {folder} nor base64") from None


def _check_image(data: bytes) -> None:
    from PIL import Image

    formats = ["PNG", "JPEG", "WEBP"]
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            image.verify()
        with Image.open(io.BytesIO(data), formats=formats) as image:  # verify() looks at no pixels, and uses it up
            image.load()
    except Exception as error:  # on broken bytes a decoder raises what it likes
        raise DataError(f"an image can't be read: {error}") from error
