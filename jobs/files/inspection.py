"""Inspects an uploaded file in a separate process with limits: a harmful file can only end that process.

    python -m jobs.files.inspection FILE REPORT '{"title": ..., "columns": {...}, "format": ...}'

Reads each row as a trainer reads it, including all images. The report is an `Inspection` as JSON.
"""

import base64
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, PrivateAttr

from calibrl_core.data.files import LONGEST_PROBLEM, RowProblem, read_examples
from calibrl_core.data.image_decoding import open_image
from calibrl_core.data.schema import AUTO, Columns, DataError, Example, FileData
from calibrl_core.data.source_facts import SourceFacts
from jobs.errors import FieldError, Invalid
from jobs.postgres_text import storable
from jobs.processes import sandbox

MEMORY_BYTES = 4 * 2**30
LIMIT_SECONDS = 900
MAX_ROWS = 5_000_000
MAX_UNCOMPRESSED_BYTES = 16 * 10**9  # maximum bytes of text and images
MAX_ROW_GROUP_BYTES = 2 * 10**9  # maximum bytes of an uncompressed Parquet row group
MAX_LISTED_FAULTS = 50
_DETAIL = re.compile(r"b?'[^']*[./\\][^']*'|\d+")  # path, bytes or number in a fault; rows with one fault differ in it
PREVIEW_ROWS, PREVIEW_TEXT, PREVIEW_IMAGES, THUMBNAIL = 8, 2000, 4, 192  # rows; characters; images per row; pixels


class Inspection(BaseModel):
    """Content of a file, and its first faults. A row of `preview` holds the fields of `calibrl.schemas.PreviewRow`,
    whose import would take the process that inspects a file longer than the file."""

    rows: int = 0
    has_columns: list[str] = []
    has_experts: bool = False
    row_format: str | None = None
    unused_columns: list[str] = []
    preview: list[dict[str, Any]] = []
    faults: list[FieldError] = []
    fault_count: int = 0
    unlisted: int = 0  # faults that `faults` does not contain
    _alike: dict[str, tuple[int, FieldError, int]] = PrivateAttr(default_factory=dict)  # place, first fault, others

    def blame(self, field: str, text: str) -> None:
        """Add a fault. A fault that other rows have too is listed once, with its first row and the number of others.
        After MAX_LISTED_FAULTS different ones, faults are only counted.
        """
        self.fault_count += 1
        alike = _DETAIL.sub("", text[:LONGEST_PROBLEM])
        if alike in self._alike:
            place, first, others = self._alike[alike]
            self._alike[alike] = place, first, others + 1
            count = f"{others + 1:,} more row{'s' if others else ''}"
            self.faults[place] = FieldError(first.field, f"{first.message} (the same fault: {count})")
        elif len(self.faults) < MAX_LISTED_FAULTS:
            self.faults.append(FieldError(field, text[:LONGEST_PROBLEM]))
            self._alike[alike] = len(self.faults) - 1, self.faults[-1], 0
        else:
            self.unlisted += 1


def inspect(path: Path, title: str, columns: Columns, form: str = AUTO) -> Inspection:
    """Inspect a file in a process that is killed at its limits. The report is next to the file meanwhile.

    Raises:
        Invalid: the process reached its limits or was ended by the file.
    """
    report, log = path.with_name(f"{path.name}.report"), path.with_name(f"{path.name}.log")
    options = json.dumps({"title": title, "columns": columns.model_dump(), "format": form})
    try:
        status = sandbox.run(
            __name__, str(path), str(report), options, log=log, memory=MEMORY_BYTES, seconds=LIMIT_SECONDS
        )
        if status == 0:
            return Inspection.model_validate_json(report.read_bytes())
    finally:
        report.unlink(missing_ok=True)
        log.unlink(missing_ok=True)
    text = (
        f"reading the file took more than {LIMIT_SECONDS} s or {MEMORY_BYTES // 2**30} GiB, or ended the process; "
        "use smaller rows or row groups"
    )
    raise Invalid("The file cannot be read.", (FieldError("file", text),))


def look_into(source: FileData) -> Inspection:
    """Inspect a file in this process."""
    inspection, facts = Inspection(), SourceFacts()
    unpacked = 0
    for text in _parquet_faults(source):
        inspection.blame("file", text)
    if inspection.faults:
        return inspection
    for each in read_examples(source, facts, answers=False):
        if isinstance(each, RowProblem) and each.row is None:
            inspection.blame("file", each.text)
            continue
        inspection.rows += 1
        if isinstance(each, RowProblem):
            inspection.blame(f"rows.{each.row}", each.text)
            continue
        if not each.answer and facts.form and facts.form.has_answers(facts.columns, source.columns):
            inspection.blame(f"rows.{inspection.rows}", facts.form.without_answer(facts.columns, source.columns))
            continue
        unpacked += _size(each)
        inspection.has_experts |= each.expert is not None
        if len(inspection.preview) < PREVIEW_ROWS:
            _show(inspection, each)
        if inspection.rows > MAX_ROWS or unpacked > MAX_UNCOMPRESSED_BYTES:
            inspection.blame(
                "file", f"has more than {MAX_ROWS} rows, or more than {MAX_UNCOMPRESSED_BYTES // 10**9} GB uncompressed"
            )
            break
    if not inspection.rows and not inspection.faults:
        inspection.blame("file", "has no rows")
    inspection.has_columns = sorted(facts.columns)
    inspection.row_format = facts.form.title if facts.form else None
    inspection.unused_columns = [*facts.unused]
    return inspection


def _show(inspection: Inspection, example: Example) -> None:
    try:
        inspection.preview.append(_preview(inspection.rows, example))
    except DataError as problem:
        inspection.blame(f"rows.{inspection.rows}", str(problem))


def _parquet_faults(source: FileData) -> Iterator[str]:
    """Yield faults in the metadata of a Parquet file."""
    if not source.path.endswith(".parquet"):
        return
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        index = parquet.read_metadata(source.path)
        groups = [index.row_group(place).total_byte_size for place in range(index.num_row_groups)]
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        yield f"is not a readable Parquet file: {error}"
        return
    if index.num_rows > MAX_ROWS:
        yield f"has {index.num_rows} rows; the maximum is {MAX_ROWS}"
    if sum(groups) > MAX_UNCOMPRESSED_BYTES or min(groups, default=0) < 0:
        yield f"has {sum(groups)} bytes uncompressed; the maximum is {MAX_UNCOMPRESSED_BYTES}"
    if max(groups, default=0) > MAX_ROW_GROUP_BYTES:
        yield f"has a row group of {max(groups)} bytes; the maximum is {MAX_ROW_GROUP_BYTES}: use more row groups"


def _size(example: Example) -> int:
    texts = (example.question, example.answer, example.expert or "", *(turn.text for turn in example.earlier))
    return sum(map(len, texts)) + sum(map(len, example.images))


def _preview(row: int, example: Example) -> dict[str, Any]:
    return {
        "row": row,
        "earlier": [_cut(f"{turn.role}: {turn.text}") for turn in example.earlier[:PREVIEW_IMAGES]],
        "question": _cut(example.question),
        "answer": _cut(example.answer),
        "expert": None if example.expert is None else _cut(example.expert),
        "data_source": None if example.data_source is None else _cut(example.data_source),
        "images": [_thumbnail(image) for image in example.images[:PREVIEW_IMAGES]],
        "image_count": len(example.images),
    }


def _cut(text: str) -> str:
    return text if len(text) <= PREVIEW_TEXT else f"{text[:PREVIEW_TEXT]} …"


def _thumbnail(data: bytes) -> str:
    """Return a small copy as a data URL.

    Raises:
        DataError: its pixels cannot be decoded.
    """
    small = open_image(data)
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def main() -> None:
    """Run the command of the module."""
    path, report, options = sys.argv[1:]
    fields: dict[str, Any] = json.loads(options)
    inspection = look_into(FileData(path=path, image_files=False, **fields))
    Path(report).write_text(json.dumps(storable(inspection.model_dump(mode="json"))))


if __name__ == "__main__":
    main()
