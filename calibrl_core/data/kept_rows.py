"""Writes chosen rows of a source as JSONL: those that a data report does not drop, or that an audit keeps."""

import base64
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, time
from itertools import chain, islice
from pathlib import Path
from typing import Any

from calibrl_core.data.files import parsed_row, source_format
from calibrl_core.data.formats.base import RowFormat
from calibrl_core.data.readers import BATCH, RawRow, parse_row, read_rows
from calibrl_core.data.replaced_experts import read_row, with_expert
from calibrl_core.data.schema import DataError, FileData, HubData


def write_kept(source: FileData, dropped: Collection[int], target: Path) -> int:
    """Write all rows whose number, from 1, is not dropped; return how many. Lines of JSONL are copied byte for byte;
    other rows become JSON, with bytes as base64. The file appears when it is complete.

    Raises:
        DataError: the source cannot be read.
        OSError: the file exists already, or cannot be written.
    """
    numbered = enumerate(islice(read_rows(source), source.rows), start=1)
    return _write((raw for number, raw in numbered if number not in dropped), target)


@dataclass
class WrittenRows:
    """Number of rows that were written, of those with a new expert among them, and of rows that were left out because
    their format cannot hold a new expert.
    """

    rows: int = 0
    replaced: int = 0
    left_out: int = 0


def write_chosen(source: FileData | HubData, chosen: Iterable[tuple[int, str | None]], target: Path) -> WrittenRows:
    """Write the chosen rows as `write_kept` does. `chosen`: numbers of rows in ascending order, from 1, each with the
    text that replaces its expert, or None.

    Raises:
        DataError: the source cannot be read, or its rows would not find their image files.
        OSError: the file exists already, or cannot be written.
    """
    rows, written = read_rows(source), WrittenRows()
    head = list(islice(rows, BATCH))
    form = source_format(source, [*map(parsed_row, head)], answers=False)
    moved = _is_moved(source, target)
    numbered = enumerate(islice(chain(head, rows), source.rows), start=1)

    def lines() -> Iterator[RawRow]:
        for number, expert in chosen:
            raw = next((raw for place, raw in numbered if place == number), None)
            if raw is None:
                raise DataError(f"{source.label} has no row {number}: it has changed since it was audited")
            if moved and isinstance(source, FileData):
                _check_images(form, source, raw, target)
            changed = raw if expert is None else with_expert(form, source, parse_row(raw), expert)
            if changed is None:
                written.left_out += 1
                continue
            written.replaced += expert is not None
            yield changed

    written.rows = _write(lines(), target)
    return written


def check_target(source: FileData, target: Path, *, names_files: bool) -> None:
    """Check that rows still find their image files when they are in `target`.

    Raises:
        DataError: they do not.
    """
    if names_files and _is_moved(source, target):
        path = Path(source.path).resolve()
        where = f"a file in {path.parent}" if path.is_file() else "a file, and a single source file"
        raise DataError(f"rows of {source.label} name image files by paths that start at its folder: write to {where}")


def _is_moved(source: FileData | HubData, target: Path) -> bool:
    """Return if paths of images in rows have another meaning in `target`."""
    if isinstance(source, HubData):
        return False
    path = Path(source.path).resolve()
    return path.is_dir() or target.resolve().parent != path.parent


def _check_images(form: RowFormat, source: FileData, raw: RawRow, target: Path) -> None:
    images = read_row(form, source, parse_row(raw)).images
    check_target(source, target, names_files=any(hasattr(image, "path") for image in images))


def _write(rows: Iterable[RawRow], target: Path) -> int:
    if target.exists():
        raise FileExistsError(f"{target} exists already: name another file, or remove it")
    partial = target.with_name(f"{target.name}.partial")
    count = 0
    try:
        with partial.open("wb") as file:
            for raw in rows:
                file.write(_line(raw))
                count += 1
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _line(raw: RawRow) -> bytes:
    if isinstance(raw, bytes):
        return raw if raw.endswith(b"\n") else raw + b"\n"
    return json.dumps(raw, default=_plain).encode() + b"\n"


def _plain(value: Any) -> Any:
    """Return a value of Parquet that JSON lacks."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, date | time) else str(value)
