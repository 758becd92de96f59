"""Rows that an audit keeps: copied as they are, or with another expert in the format that they have."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from calibrl_core.data.files import load
from calibrl_core.data.kept_rows import WrittenRows, write_chosen
from calibrl_core.data.schema import Columns, DataError, FileData

NEW = "<think>3+4</think><answer>7</answer>"


def write(path: Path, *rows: dict[str, Any]) -> FileData:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return FileData(path=str(path))


def chat(answer: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": "3+4?"}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "answer": "7"}


def verl(expert: Any) -> dict[str, Any]:
    prompt = [{"role": "user", "content": "3+4?"}]
    return {"prompt": prompt, "reward_model": {"ground_truth": "7"}, "solution": expert, "pass_ratio": 0.5}


def test_lines_are_copied_and_other_rows_left_out(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", *({"question": f"{n}?", "answer": n, "expert": "e"} for n in range(5)))
    target = tmp_path / "kept.jsonl"
    assert write_chosen(source, [(2, None), (5, None)], target) == WrittenRows(rows=2)
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert target.read_text().splitlines() == [lines[1], lines[4]]
    with pytest.raises(FileExistsError, match="exists already"):
        write_chosen(source, [], target)
    with pytest.raises(DataError, match="has no row 9: it has changed"):
        write_chosen(source, [(9, None)], tmp_path / "more.jsonl")
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    "row",
    [
        {"question": "3+4?", "answer": "7", "expert": "seven"},
        {"question": "3+4?", "answer": "7", "expert": "7"},  # the same text in two columns
        {"question": "3+4?", "answer": "7", "reasoning_content": "3+4", "expert": "7"},
        {"question": "3+4?", "answer": "7", "reasoning_content": "3+4"},
        chat("It is <answer>7</answer>"),
        verl("seven"),
        verl([{"role": "assistant", "content": "seven"}]),
    ],
)
def test_a_row_keeps_all_but_its_expert(tmp_path: Path, row: dict[str, Any]) -> None:
    source = write(tmp_path / "a.jsonl", row)
    target = tmp_path / "kept.jsonl"
    assert write_chosen(source, [(1, NEW)], target) == WrittenRows(rows=1, replaced=1)
    (before,), (after,) = load(source), load(FileData(path=str(target)))
    assert (before.expert == NEW, after.expert) == (False, NEW)
    assert (after.question, after.answer, after.pass_ratio) == (before.question, before.answer, before.pass_ratio)


def test_a_named_expert_column_gets_the_new_expert(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", {"question": "3+4?", "answer": "7", "trace": "seven"})
    source = source.model_copy(update={"columns": Columns(expert="trace")})
    write_chosen(source, [(1, NEW)], tmp_path / "kept.jsonl")
    assert json.loads((tmp_path / "kept.jsonl").read_text())["trace"] == NEW


def test_a_row_whose_format_composes_the_expert_is_left_out(tmp_path: Path) -> None:
    """GSM8K's answer holds both the solution and the answer."""
    source = write(tmp_path / "a.jsonl", {"question": "3+4?", "answer": "3+4=7\n#### 7"})
    assert write_chosen(source, [(1, NEW)], tmp_path / "kept.jsonl") == WrittenRows(left_out=1)


def test_rows_of_parquet_become_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    rows = [{"question": "3+4?", "answer": "7", "expert": text} for text in ("one", "two")]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    write_chosen(FileData(path=str(path)), [(1, None), (2, NEW)], tmp_path / "kept.jsonl")
    kept = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()]
    assert [one["expert"] for one in kept] == ["one", NEW]


def test_rows_with_image_files_stay_beside_them(tmp_path: Path, png: bytes) -> None:
    (tmp_path / "a.png").write_bytes(png)
    row = {"question": "3+4?", "answer": "7", "expert": "seven"}
    source = write(tmp_path / "a.jsonl", row, row | {"images": ["a.png"]})
    (tmp_path / "other").mkdir()
    assert write_chosen(source, [(1, None)], tmp_path / "other" / "text.jsonl").rows == 1
    with pytest.raises(DataError, match=r"name image files by paths that start at its folder: write to a file in"):
        write_chosen(source, [(2, None)], tmp_path / "other" / "kept.jsonl")
    assert write_chosen(source, [(2, None)], tmp_path / "kept.jsonl").rows == 1
