"""What the readers of every form share: a row, and the checks of its cells. All raise DataError."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrl_core.data.schema import Columns, DataError


@dataclass(frozen=True)
class Row:
    """One row as it was read."""

    id: str
    values: dict[str, Any]
    columns: Columns
    folder: Path | None  # where the files of its images must lie; None: it may name none


def question_text(row: Row, column: str) -> str:
    """The text of a column that must not be empty."""
    text = row.values.get(column)
    if not isinstance(text, str) or not text:
        raise DataError(f"column {column!r} must hold the question's text")
    return text


def answer_text(value: Any, column: str) -> str:
    """A verifiable answer as text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        raise DataError(f"column {column!r} must hold the answer, text or a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"column {column!r} holds {value}, which no answer equals")
    return str(value)


def with_options(question: str, options: list[Any]) -> str:
    """The question with its options, lettered from A, one a line."""
    lines = [f"({letter(index)}) {option}" for index, option in enumerate(options)]
    return "\n".join([question, "Choices:", *lines, "Answer with the letter of the right choice."])


def letter(index: int) -> str:
    """A for 0, B for 1 ..."""
    if index >= 26:
        raise DataError("column 'choices' holds more than 26 options")
    return chr(ord("A") + index)
