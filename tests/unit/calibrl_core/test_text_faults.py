"""Texts that no tokenizer or file can hold are found when a row is read."""

import json
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.data import files, load, readers
from calibrl_core.data.files import check_source
from calibrl_core.data.schema import DataError, FileData


def source(folder: Path, *lines: str) -> FileData:
    (folder / "x.jsonl").write_text("".join(line + "\n" for line in lines))
    return FileData(path=str(folder / "x.jsonl"))


def row(**cells: Any) -> str:
    return json.dumps({"question": "q", "answer": "1"} | cells)


HALF, NUL = "a \ud83d b", "a \0 b"


@pytest.mark.parametrize(
    ("cells", "place"),
    [
        ({"question": HALF}, "the question holds half of a character ('\\ud83d')"),
        ({"answer": HALF}, "the answer holds half of a character"),
        ({"expert": HALF}, "the expert holds half of a character"),
        ({"hint": ["x", {"y": HALF}]}, "column 'hint' holds half of a character"),
        ({HALF: "x"}, "column 'a \\ud83d b' holds half of a character"),
        ({"question": NUL}, "the question holds a NUL character"),
        ({"answer": NUL}, "the answer holds a NUL character"),
        ({"expert": NUL}, "the expert holds a NUL character"),
    ],
)
def test_half_a_character_is_named_with_its_row(tmp_path: Path, cells: dict[str, Any], place: str) -> None:
    given = source(tmp_path, row(), row(**cells), row(question="an emoji \U0001f600"))
    with pytest.raises(DataError) as refused:
        load(given)
    assert f"x.jsonl, row 2: {place}" in str(refused.value)
    assert [str(refused.value)] == check_source(given, needs_experts=False)
    str(refused.value).encode()  # the message itself can be written


def test_earlier_messages_are_checked(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "system", "content": HALF}, {"role": "user", "content": "q"}], "answer": "1"}
    with pytest.raises(DataError, match="an earlier message of the system holds half of a character"):
        load(source(tmp_path, json.dumps(chat)))


def test_a_pair_is_a_character(tmp_path: Path) -> None:
    (example,) = load(source(tmp_path, '{"question": "\\ud83d\\ude00?", "answer": "1"}'))
    assert example.question == "\U0001f600?"


def test_a_line_of_very_many_values_is_refused_unparsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MOST_VALUES", 5)
    given = source(tmp_path, row(), '{"question": "q", "answer": "1", "a": [[], [], []]}')
    with pytest.raises(DataError, match="row 2: the line has more than 5 values: make it shorter, or use Parquet"):
        load(given)


def test_a_row_of_very_many_columns_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MOST_COLUMNS", 3)
    with pytest.raises(DataError, match="row 2: the row has 4 columns; the limit is 3: use fewer"):
        load(source(tmp_path, row(hint="h"), row(hint="h", other="o")))


def test_a_problem_has_a_bounded_length(tmp_path: Path) -> None:
    given = source(tmp_path, json.dumps({f"column {number}": 1 for number in range(1000)}))
    (problem,) = check_source(given, needs_experts=False)
    assert len(problem) < files.LONGEST_PROBLEM + 100 and problem.endswith(" ...")


def test_the_check_at_submission_ends_with_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CHECKED_SECONDS", -1.0)
    found = files.survey(source(tmp_path, row(), row(), row()))
    assert (found.rows, found.complete, found.problems) == (1, False, ())
