"""MathVista- and Geometry3K-like files: small ones with the same columns."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from calibrl_core import data
from calibrl_core.data.schema import Columns, DataError, Example, FileData

MATHVISTA = {
    "pid": "12",
    "question": "What is the gap?",
    "image": "images/12.png",
    "decoded_image": None,
    "choices": None,
    "unit": None,
    "precision": None,
    "answer": "4",
    "question_type": "free_form",
    "answer_type": "integer",
    "metadata": {"category": "math-targeted-vqa", "source": "PlotQA", "split": "testmini", "task": "figure qa"},
    "query": "Hint: ...",
}
CHOICE = MATHVISTA | {
    "question_type": "multi_choice",
    "answer_type": "text",
    "choices": ["0.5 m", "4", "No"],
}


@pytest.fixture
def png(tmp_path: Path, png: bytes) -> bytes:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/12.png").write_bytes(png)
    return png


def load(path: Path, *rows: Any, columns: Columns | None = None) -> Sequence[Example]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return data.load(FileData(path=str(path), columns=columns or Columns()))


def test_mathvista_free_form(tmp_path: Path, png: bytes) -> None:
    (example,) = load(tmp_path / "testmini.jsonl", MATHVISTA)
    assert example.question == "What is the gap?\nAnswer with a whole number."
    assert (example.answer, example.images, example.expert) == ("4", (png,), None)
    assert (example.id, example.data_source) == ("testmini/1:12", "figure qa")


def test_mathvista_images_are_in_the_parquet_itself(tmp_path: Path, png: bytes) -> None:
    row = MATHVISTA | {"decoded_image": {"bytes": png, "path": "12.png"}, "image": "images/elsewhere.png"}
    path = tmp_path / "testmini.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row, CHOICE | {"decoded_image": None}]), path)
    first, second = data.load(FileData(path=str(path)))
    assert first.images == second.images == (png,)
    assert second.answer == "B"


@pytest.mark.parametrize(
    ("changes", "question"),
    [
        ({"unit": "cm"}, "What is the gap? (Unit: cm)\nAnswer with a whole number."),
        ({"answer_type": "float", "precision": 1.0}, "What is the gap?\nRound the answer to 1 decimal place."),
        ({"answer_type": "float", "precision": 2.0}, "What is the gap?\nRound the answer to 2 decimal places."),
        ({"answer_type": "list", "answer": "[1, 4]"}, "What is the gap?\nAnswer with a list, such as [1, 2, 3]."),
        ({"answer_type": "text"}, "What is the gap?"),
    ],
)
def test_mathvista_gives_the_form_of_the_answer(
    tmp_path: Path, png: bytes, changes: dict[str, Any], question: str
) -> None:
    assert load(tmp_path / "a.jsonl", MATHVISTA | changes)[0].question == question


def test_mathvista_choices_go_into_the_question_and_the_answer_is_a_letter(tmp_path: Path, png: bytes) -> None:
    (example,) = load(tmp_path / "a.jsonl", CHOICE)
    assert example.question == (
        "What is the gap?\nChoices:\n(A) 0.5 m\n(B) 4\n(C) No\nAnswer with the letter of the right choice."
    )
    assert example.answer == "B"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (MATHVISTA | {"answer": ""}, "does not publish the answers of `test`"),
        (CHOICE | {"answer": "B"}, "column 'answer' ('B') must be one of the choices"),
        (CHOICE | {"choices": None}, "column 'choices' must hold a list"),
        (CHOICE | {"choices": [str(n) for n in range(30)], "answer": "29"}, "at most 26 options"),
        (MATHVISTA | {"image": "images/13.png"}, "image 'images/13.png'"),
    ],
)
def test_bad_mathvista_rows_are_named(tmp_path: Path, png: bytes, row: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError) as caught:
        load(tmp_path / "a.jsonl", MATHVISTA, row)
    assert "row 2: " in str(caught.value) and problem in str(caught.value)
    assert "row 1: " not in str(caught.value)


def test_a_named_column_replaces_only_that_one(tmp_path: Path, png: bytes) -> None:
    columns = Columns(question="query", images="image")
    (example,) = load(tmp_path / "a.jsonl", CHOICE, columns=columns)
    assert example.question.startswith("Hint: ...\nChoices:\n(A) 0.5 m\n(B) 4\n(C) No\n")
    assert (example.answer, example.images) == ("B", (png,))
    listed = "Hint: ...\nChoices:\n(A) 0.5 m\n(B) 4\n(C) No"
    (example,) = load(tmp_path / "b.jsonl", CHOICE | {"query": listed}, columns=columns)
    assert example.question == f"{listed}\nAnswer with the letter of the right choice."


def test_geometry3k(tmp_path: Path, png: bytes) -> None:
    row = {"images": [{"bytes": png, "path": None}], "problem": "<image>Find x.", "answer": "\\sqrt{3}"}
    path = tmp_path / "test.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    (example,) = data.load(FileData(path=str(path)))
    assert (example.question, example.answer, example.images) == ("<image>Find x.", "\\sqrt{3}", (png,))


INTERGPS = {
    "id": 2401,
    "problem_text": "Find y.",
    "choices": ["8.0", 13.5, "16.0", "A"],
    "answer": "C",
    "image": "images/12.png",
    "problem_type_graph": ["Triangle"],
    "problem_type_goal": ["Length"],
}


def test_geometry3k_rows_match_inter_gps(tmp_path: Path, png: bytes) -> None:
    (example,) = load(tmp_path / "a.jsonl", INTERGPS)
    assert example.question == (
        "Find y.\nChoices:\n(A) 8.0\n(B) 13.5\n(C) 16.0\n(D) A\nAnswer with the letter of the right choice."
    )
    assert (example.answer, example.images, example.data_source) == ("C", (png,), "Length")
    assert load(tmp_path / "b.jsonl", INTERGPS | {"answer": "A"})[0].answer == "A"  # the letter, not the option "A"


@pytest.mark.parametrize("answer", ["E", "16.0", ""])
def test_an_inter_gps_answer_must_be_a_letter(tmp_path: Path, png: bytes, answer: str) -> None:
    with pytest.raises(DataError, match="row 1: column 'answer'"):
        load(tmp_path / "a.jsonl", INTERGPS | {"answer": answer})
