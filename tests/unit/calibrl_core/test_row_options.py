"""Options in columns of a row: the prompt of every format shows them once, and the truth is a letter."""

import json
from pathlib import Path
from typing import Any

import pytest

from calibrl_core import data
from calibrl_core.data import files
from calibrl_core.data.formats import NAMES
from calibrl_core.data.schema import DataError, Example, FileData
from calibrl_core.models.policy import Policy
from tests.support.option_rows import LISTED, OPTIONS, REQUEST, ROWS, USER


def only(tmp_path: Path, row: dict[str, Any]) -> Example:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    (example,) = data.load(FileData(path=str(path)))
    return example


def shown(policy: Policy, example: Example) -> str:
    tokens, _ = policy.encoder.unexpanded(example)
    return str(policy.tokenizer.decode(tokens))


def test_every_format_has_a_row() -> None:
    assert set(ROWS) == set(NAMES)


@pytest.mark.parametrize("name", ROWS)
def test_the_prompt_shows_the_options_and_asks_for_a_letter(tmp_path: Path, policy: Policy, name: str) -> None:
    example = only(tmp_path, ROWS[name])
    assert f"{LISTED}{REQUEST}" in shown(policy, example)
    assert example.answer == "B"
    found = files.survey(FileData(path=str(tmp_path / "rows.jsonl"), format=name))
    assert found.unused_columns == ()


@pytest.mark.parametrize(
    "listed", ["A. 3\nB. 4", "(A) 3 (B) 4", "A 3  B 4", "\\textbf{(A)}\\ 3 \\textbf{(B)}~4", "A：3 B：4"]
)
def test_options_that_the_question_lists_are_shown_once(tmp_path: Path, policy: Policy, listed: str) -> None:
    example = only(tmp_path, {"problem": f"Sum?\n{listed}", "answer": "4", **OPTIONS})
    assert (example.question, example.answer) == (f"Sum?\n{listed}\n{REQUEST}", "B")


def test_a_letter_within_a_word_lists_no_option(tmp_path: Path) -> None:
    assert "Choices:" in only(tmp_path, {"problem": "DATA. 3 or LAB. 4?", "answer": "4", **OPTIONS}).question


@pytest.mark.parametrize("names", ["ABC", ("option_a", "option_b", "option_c"), ("choiceA", "choiceB", "choiceC")])
def test_options_in_a_column_each_are_shown(tmp_path: Path, names: tuple[str, ...]) -> None:
    columns = dict(zip(names, ("3", 4, None), strict=True))
    example = only(tmp_path, {"question": "Sum?", **columns, "answer": "B"})
    assert (example.question, example.answer) == (f"{LISTED}{REQUEST}", "B")
    found = files.survey(FileData(path=str(tmp_path / "rows.jsonl")))
    assert found.unused_columns == ()


@pytest.mark.parametrize("answer", ["7", "C", 1, "a point"])
def test_columns_of_other_letters_are_no_options(tmp_path: Path, answer: Any) -> None:
    example = only(tmp_path, {"question": "Sum?", "A": "3", "B": "4", "answer": answer})
    assert (example.question, example.answer) == ("Sum?", str(answer))
    assert files.survey(FileData(path=str(tmp_path / "rows.jsonl"))).unused_columns == ("A", "B")


def test_an_expert_without_a_truth_beside_it_stays_the_answer(tmp_path: Path) -> None:
    said = {"role": "assistant", "content": "<think>1+3.</think><answer>4</answer>"}
    example = only(tmp_path, {"messages": [USER, said], **OPTIONS})
    assert (example.question, example.answer) == (LISTED.rstrip(), "4")


def test_a_truth_that_is_no_option_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 1: column 'reward_model.ground_truth' \('7'\) must be the letter"):
        only(tmp_path, ROWS["verl"] | {"reward_model": {"ground_truth": "7"}})
    with pytest.raises(DataError, match=r"column 'options' must hold a list of .*; rename it if it holds something"):
        only(tmp_path, ROWS["easyr1"] | {"options": {"temperature": 1}})
