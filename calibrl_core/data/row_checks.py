"""Checks of the cells of a row, for the readers of all formats. All functions raise DataError."""

import math
from decimal import Decimal
from typing import Any

from calibrl_core.data.row import Cell, has_content
from calibrl_core.data.schema import DataError

_RATIO = "column 'pass_ratio' must be empty or a number up to 1; in verl's form 0 drops the expert"


def question_text(cell: Cell) -> str:
    """Return the text of a cell that must not be empty.

    Raises:
        DataError: the cell is empty or not text.
    """
    if not isinstance(cell.value, str) or not cell.value:
        raise DataError(f"column {cell.column!r} must hold the question's text")
    return cell.value


def answer_text(cell: Cell) -> str:
    """Return a verifiable answer as text; empty, if the cell is. A list of one entry is this entry. A decimal number
    loses its trailing zeros: 18.00 is 18.

    Raises:
        DataError: the value is not finite, or neither text nor a number.
    """
    column, value = cell.column, only_entry(cell.value)
    if not has_content(value):
        return ""
    if isinstance(value, bool):
        raise DataError(f"column {column!r} holds true or false: write the answer as text, such as yes or no")
    if not isinstance(value, str | int | float | Decimal):
        listed = f"; it has a list of {len(value)}: join them by commas" if isinstance(value, list | tuple) else ""
        raise DataError(f"column {column!r} must hold the answer, as text or a number{listed}")
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        raise DataError(f"column {column!r} holds {value}, which equals no answer; use a finite number")
    return plain_text(value)


def only_entry(value: Any) -> Any:
    """Return the entry of a list that has one, or any other value."""
    while isinstance(value, list | tuple) and len(value) == 1:
        (value,) = value
    return value


def whole_number(value: Any) -> int | None:
    """Return a whole number of any type, such as 2.0 of a column with empty cells; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal) or not math.isfinite(value):
        return None
    return int(value) if value == int(value) else None


def plain_text(value: Any) -> str:
    """Return a value as text; a decimal number without trailing zeros."""
    if not isinstance(value, Decimal):
        return str(value)
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def pass_ratio(value: Any) -> float | None:
    """Return the share of right answers of a reference model; None if the cell is empty.

    Raises:
        DataError: the value is not a number up to 1.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise DataError(_RATIO)
    if not math.isfinite(value) or value > 1:
        raise DataError(_RATIO)
    return float(value)
