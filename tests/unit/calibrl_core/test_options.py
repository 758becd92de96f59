"""Options of multiple-choice questions: every published form, and the letter of the right one."""

from decimal import Decimal
from typing import Any

import pytest

from calibrl_core.data.options import letter_at, read_options, right_letter, with_options
from calibrl_core.data.row import Cell
from calibrl_core.data.schema import DataError

THREE = ["3", "5", "4"]


@pytest.mark.parametrize(
    ("value", "options"),
    [
        (["3", "5", "4"], THREE),
        ([3, 5, 4], THREE),
        ("['3', '5', '4']", THREE),
        ('["3", "5", "4"]', THREE),
        ({"A": "3", "B": "5", "C": "4"}, THREE),
        ({"C": "4", "A": "3", "B": "5", "D": None}, THREE),
        ('{"A": "3", "B": "5", "C": "4"}', THREE),
        ({"label": ["A", "B", "C"], "text": ["3", "5", "4"]}, THREE),
        ([{"label": "A", "text": "3"}, {"label": "B", "text": "5"}, {"label": "C", "text": "4"}], THREE),
        ("A. 3; B. 5; C. 4;", THREE),
        ("(A) 3 (B) 5 (C) 4", THREE),
        ("A: 3\nB: 5\nC: 4", THREE),
        ("3\n5\n4", THREE),
        (["A. 3", "B. 5", "C. 4"], THREE),
        (["(A) 3", "(B) 5", "(C) 4"], THREE),
        (["B. Brown", "A. Smith"], ["B. Brown", "A. Smith"]),  # names, not letters in order
        (["A", "B"], ["A", "B"]),
        ("A. 3.5 cm; B. 4 cm", ["3.5 cm", "4 cm"]),
        (None, []),
        ([], []),
        ("[]", []),
        ("", []),
    ],
)
def test_options_of_each_form(value: Any, options: list[str]) -> None:
    assert read_options(Cell("options", value)) == options


@pytest.mark.parametrize("value", [["3"], "3", 7, {"x": "3", "y": "4"}, [str(number) for number in range(27)]])
def test_other_values_are_no_options(value: Any) -> None:
    with pytest.raises(DataError, match="column 'options' must hold a list of at least two options"):
        read_options(Cell("options", value))


@pytest.mark.parametrize(
    ("answer", "options", "letter"),
    [
        (1, THREE, "B"),
        (0, THREE, "A"),
        ("B", THREE, "B"),
        ("(B)", THREE, "B"),
        ("B.", THREE, "B"),
        ("B. 5", THREE, "B"),
        ("5", THREE, "B"),
        (5, THREE, "B"),
        ("<answer> B </answer>", THREE, "B"),
        ("\\boxed{C}", THREE, "C"),
        ("2", THREE, "C"),  # no text of an option: an index
        ("red", ["Red", "blue"], "A"),
        ("A", ["B", "A"], "A"),  # a letter before a text
        ("AC", THREE, "A, C"),
        ("A, C", THREE, "A, C"),
        ("A and C", THREE, "A, C"),
        (["A", "C"], THREE, "A, C"),
        ([0, 2], THREE, "A, C"),
        (1.0, THREE, "B"),
        (5.0, THREE, "B"),
        (Decimal(1), THREE, "B"),
        (Decimal("5.00"), THREE, "B"),
        (5.0, ["3.0", "5.0"], "B"),
        ([[["B"]]], THREE, "B"),
        ([1.0, 2.0], THREE, "B, C"),
        (None, THREE, ""),
        ("", THREE, ""),
    ],
)
def test_the_letter_of_each_kind_of_answer(answer: Any, options: list[str], letter: str) -> None:
    assert right_letter(Cell("answer", answer), options) == letter


@pytest.mark.parametrize(
    ("answer", "options", "problem"),
    [
        ("7", THREE, "must be the letter, the text or the index"),
        ("D", THREE, "must be the letter, the text or the index"),
        (3.5, THREE, "must be the letter, the text or the index"),
        (-1, THREE, "must be the letter, the text or the index"),
        (2, ["2", "3", "4"], "is the index of one option and the text of another: write the letter"),
        (True, THREE, "holds true or false: write the answer as text, such as yes or no"),
        (2.0, ["2.0", "3.0", "4.0"], "is the index of one option and the text of another: write the letter"),
        ([["A", "B"], "C"], THREE, "must hold the answer, as text or a number; it has a list of 2"),
    ],
)
def test_an_answer_that_is_no_option_is_refused(answer: Any, options: list[str], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        right_letter(Cell("answer", answer), options)


@pytest.mark.parametrize("index", [3, -1, "B", True, 0.5])
def test_an_index_must_be_that_of_a_choice(index: Any) -> None:
    with pytest.raises(DataError, match="must be the index of a choice, from 0 to 2"):
        letter_at(Cell("answer", index), THREE)


@pytest.mark.parametrize("index", [1, 1.0, Decimal("1.0")])
def test_an_index_can_be_any_type_of_number(index: Any) -> None:
    assert letter_at(Cell("answer", index), THREE) == "B"


def test_options_are_added_unless_the_question_lists_them() -> None:
    request = "Answer with the letter of the right choice."
    assert with_options("Which?", ["3", "5"]) == f"Which?\nChoices:\n(A) 3\n(B) 5\n{request}"
    listed = "Which?\nA. 3\nB. 5"
    assert with_options(listed, ["3", "5"]) == f"{listed}\n{request}"
    assert with_options("Which?", ["3", "5"], "A, B").endswith("Answer with the letters of all right choices.")


def test_a_long_answer_is_read_once() -> None:
    with pytest.raises(DataError, match="must be the letter"):
        right_letter(Cell("answer", "A" + " " * 200_000 + "1"), THREE)


def test_options_in_a_question_are_found_behind_any_of_their_letters() -> None:
    question = "Is A. the one? A. 3, (B) 5, C: 4"
    assert with_options(question, THREE) == f"{question}\nAnswer with the letter of the right choice."
    assert "(C) 45" in with_options(question, ["3", "5", "45"])
