"""Examples from a `.jsonl` or `.parquet` file. Without torch, so that the API can check a file."""

import base64
import binascii
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calibrl_core.data.schema import DataError, Example, FileData

SHOWN = 20  # problems listed; the rest are counted


def load(source: FileData) -> list[Example]:
    """The file's examples. Raises DataError with every bad row at once."""
    examples: list[Example] = []
    problems: list[str] = []
    for number, row in _rows(source):
        try:
            examples.append(_example(source, number, row))
        except DataError as problem:
            problems.append(f"{source.path}, row {number}: {problem}")
    if problems:
        more = f" (and {len(problems) - SHOWN} more)" if len(problems) > SHOWN else ""
        raise DataError("; ".join(problems[:SHOWN]) + more)
    if not examples:
        raise DataError(f"{source.path} has no rows")
    return examples


def check_source(source: FileData, *, needs_experts: bool) -> list[str]:
    """Sentences on what keeps this file from being trained on; empty where nothing does."""
    path = Path(source.path)
    if path.suffix not in (".jsonl", ".parquet"):
        return [f"{source.path} is neither .jsonl nor .parquet; convert it to one of them"]
    if not path.is_file():
        return [f"{source.path} does not exist on this machine; give the absolute path of a file that workers can read"]
    try:
        examples = load(source)
    except DataError as problem:
        return [str(problem)]
    if needs_experts and not any(example.expert for example in examples):
        return [
            f"no row of {source.path} has an expert in column {source.columns.expert!r}, and this algorithm needs "
            "experts; add them, name their column in data.columns.expert, or choose {type: grpo}"
        ]
    return []


def _rows(source: FileData) -> Iterator[tuple[int, dict[str, Any]]]:
    """Row numbers from 1 and rows."""
    reader = _parquet_rows if source.path.endswith(".parquet") else _jsonl_rows
    for number, row in enumerate(reader(source.path), start=1):
        if source.rows is not None and number > source.rows:
            return
        yield number, row


def _jsonl_rows(path: str) -> Iterator[dict[str, Any]]:
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, line {number} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number} is not an object with columns")
            yield row


def _parquet_rows(path: str) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} is not a Parquet file: {error}") from error


def _example(source: FileData, number: int, row: dict[str, Any]) -> Example:
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
        path = (folder / text).resolve()
        if path.is_relative_to(folder) and path.is_file():
            return path.read_bytes()
    try:
        return base64.b64decode(text.rpartition("base64,")[2], validate=True)
    except binascii.Error:
        raise DataError(f"image {text[:80]!r} is neither a file in {folder} nor base64") from None


def _check_image(data: bytes) -> None:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP"]) as image:
            image.verify()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"an image cannot be read: {error}") from error
