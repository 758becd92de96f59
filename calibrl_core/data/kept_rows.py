"""Writes the rows of a source that a data report does not drop, as JSONL."""

import base64
import json
from collections.abc import Collection
from datetime import date, time
from itertools import islice
from pathlib import Path
from typing import Any

from calibrl_core.data.readers import RawRow, read_rows
from calibrl_core.data.schema import DataError, FileData


def write_kept(source: FileData, dropped: Collection[int], target: Path) -> int:
    """Write all rows whose number, from 1, is not dropped; return how many. Lines of JSONL are copied byte for byte;
    other rows become JSON, with bytes as base64. The file appears when it is complete.

    Raises:
        DataError: the source cannot be read.
        OSError: the file exists already, or cannot be written.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists already: name another file, or remove it")
    partial = target.with_name(f"{target.name}.partial")
    kept = 0
    try:
        with partial.open("wb") as file:
            for number, raw in enumerate(islice(read_rows(source), source.rows), start=1):
                if number not in dropped:
                    file.write(_line(raw))
                    kept += 1
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)
    return kept


def check_target(source: FileData, target: Path, *, names_files: bool) -> None:
    """Check that rows still find their image files when they are in `target`.

    Raises:
        DataError: they do not.
    """
    path = Path(source.path).resolve()
    if names_files and (path.is_dir() or target.resolve().parent != path.parent):
        where = f"a file in {path.parent}" if path.is_file() else "a file, and a single source file"
        raise DataError(f"rows of {source.label} name image files by paths that start at its folder: write to {where}")


def _line(raw: RawRow) -> bytes:
    if isinstance(raw, bytes):
        return raw if raw.endswith(b"\n") else raw + b"\n"
    return json.dumps(raw, default=_plain).encode() + b"\n"


def _plain(value: Any) -> Any:
    """Return a value of Parquet that JSON lacks."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, date | time) else str(value)
