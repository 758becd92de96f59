"""The columns of a row that rewards see: JSON values of bounded size, without the bytes of images."""

import math
from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal
from typing import Any

LONGEST_COLUMN = 65_536  # characters of its texts; a longer column is left out, as base64 of an image is
LONGEST_ITEM = 262_144  # characters of all texts; columns beyond are left out
MOST_VALUES = 4_096  # in a column, nested ones among them
DEEPEST = 16


class _NoJsonError(Exception):
    """A value that a reward does not get."""


def row_item(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that are JSON values, or can be written as such: a date or a time as text in ISO 8601, a
    decimal number as a number. Texts are shared with the row, not copied.
    """
    item, left = dict[str, Any](), LONGEST_ITEM
    for name, value in values.items():
        budget = [min(LONGEST_COLUMN, left), MOST_VALUES]
        before = budget[0]
        try:
            item[name] = _json(value, budget, DEEPEST)
        except _NoJsonError:
            continue
        left -= before - budget[0]
    return item


def _json(value: Any, budget: list[int], depth: int) -> Any:
    """Return a value as JSON. `budget`: how many characters and values are left; it is reduced.

    Raises:
        _NoJsonError: it cannot be written, or not within the budget.
    """
    budget[0] -= len(value) if isinstance(value, str) else 0
    budget[1] -= 1
    if min(budget) < 0 or depth < 0:
        raise _NoJsonError
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return float(value) if value.is_finite() else None
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [_json(one, budget, depth - 1) for one in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        budget[0] -= sum(map(len, value))
        return {key: _json(one, budget, depth - 1) for key, one in value.items()}
    raise _NoJsonError
