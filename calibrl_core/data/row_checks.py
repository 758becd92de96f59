"""A row, and checks of its cells, for the readers of all formats. All functions raise DataError."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibrl_core.data.schema import Columns, DataError


@dataclass(frozen=True)
class Row:
    """One row as read from its source."""

    id: str
    values: dict[str, Any]
    columns: Columns
    folder: Path | None  # folder that must contain its image files; None: the row may not name files


def question_text(row: Row, column: str) -> str:
    """Return the text of a column that must not be empty.

    Raises:
        DataError: the cell is empty or not text.
    """
    text = row.values.get(column)
    if not isinstance(text, str) or not text:
        raise DataError(f"column {column!r} must hold the question's text")
    return text


def answer_text(value: Any, column: str) -> str:
    """Return a verifiable answer as text.

    Raises:
        DataError: the value is empty, not finite, or neither text nor a number.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
        raise DataError(f"column {column!r} must hold the answer, as text or a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"column {column!r} holds {value}, which equals no answer; use a finite number")
    return str(value)


def pass_ratio(value: Any) -> float | None:
    """Return the share of right answers of a reference model; None if the cell is empty.

    Raises:
        DataError: the value is no number up to 1.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value > 1:
        raise DataError("column 'pass_ratio' must be empty or a number up to 1; in verl's form 0 drops the expert")
    return float(value)


def with_options(question: str, options: list[Any]) -> str:
    """Return the question with its options, lettered from A, one per line."""
    lines = [f"({letter(index)}) {option}" for index, option in enumerate(options)]
    return "\n".join([question, "Choices:", *lines, "Answer with the letter of the right choice."])


def letter(index: int) -> str:
    """Return A for 0, B for 1 ...

    Raises:
        DataError: the index is 26 or more.
    """
    if index >= 26:
        raise DataError("column 'choices' must hold at most 26 options")
    return chr(ord("A") + index)
