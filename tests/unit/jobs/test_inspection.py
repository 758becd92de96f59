"""Uploaded files: rows need the answer if the file has a column for it."""

import json
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.data.schema import Columns, FileData
from jobs.files.inspection import Inspection, look_into

ASK = {"role": "user", "content": "Sum?"}


def inspected(tmp_path: Path, *rows: dict[str, Any], **columns: str) -> Inspection:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return look_into(FileData(path=str(path), columns=Columns(**columns), image_files=False))


@pytest.mark.parametrize("row", [{"question": "Sum?"}, {"prompt": "Sum?"}, {"messages": [ASK]}])
def test_a_file_of_prompts_is_accepted(tmp_path: Path, row: dict[str, Any]) -> None:
    found = inspected(tmp_path, row, row)
    assert (found.rows, found.faults, [shown["answer"] for shown in found.preview]) == (2, [], ["", ""])


@pytest.mark.parametrize(
    ("row", "columns", "column"),
    [
        ({"question": "Sum?", "answer": None}, {}, "answer"),
        ({"prompt": "Sum?", "ground_truth": ""}, {}, "ground_truth"),
        ({"messages": [ASK], "truth": ""}, {"answer": "truth"}, "truth"),
    ],
)
def test_a_row_without_the_answer_of_its_column_is_a_fault(
    tmp_path: Path, row: dict[str, Any], columns: dict[str, str], column: str
) -> None:
    (fault,) = inspected(tmp_path, {**row, column: "3"}, row, **columns).faults
    assert (fault.field, fault.message.partition(",")[0]) == ("rows.2", f"column {column!r} must hold the answer")


def test_a_fault_of_many_rows_is_one_sentence(tmp_path: Path) -> None:
    named = [{"question": "Sum?", "answer": "3", "image": f"images/{number}.png"} for number in range(40)]
    found = inspected(tmp_path, *named, {"question": "Sum?", "answer": None})
    first, last = found.faults
    assert first.field == "rows.1" and first.message.startswith("image 'images/0.png' is not base64")
    assert first.message.endswith("(the same fault: 39 more rows)")
    assert (last.field, found.fault_count, found.unlisted) == ("rows.41", 41, 0)
