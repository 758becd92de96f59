"""Rows with another expert, in the format that they have."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from calibrl_core.data.formats.base import RowFormat
from calibrl_core.data.readers import image_folder
from calibrl_core.data.row import Row
from calibrl_core.data.schema import DataError, Example, FileData, HubData


def read_row(form: RowFormat, source: FileData | HubData, values: dict[str, Any]) -> Example:
    """Return the example of a row.

    Raises:
        DataError: the row is invalid.
    """
    return form.read(Row("", values, source.columns, image_folder(source)))


def with_expert(
    form: RowFormat, source: FileData | HubData, values: dict[str, Any], expert: str
) -> dict[str, Any] | None:
    """Return a row that differs from `values` in its expert only, or None if its format composes the expert of several
    columns.
    """
    before = read_row(form, source, values)
    expected = replace(before, expert=expert)
    for changed in _candidates(values, before.expert or "", expert, source.columns.expert):
        try:
            if read_row(form, source, changed) == expected:
                return changed
        except DataError:
            continue
    return None


def _candidates(values: dict[str, Any], before: str, expert: str, column: str) -> Iterator[dict[str, Any]]:
    """Yield rows with the new expert in one column: in place of the old text, or as the whole column."""
    for name, value in values.items():
        changed = _replaced(value, before, expert)
        if changed != value:
            yield {**values, name: changed}
    yield {**values, column: expert}


def _replaced(value: Any, before: str, after: str) -> Any:
    if isinstance(value, str):
        return after if value == before else value
    if isinstance(value, dict):
        return {key: _replaced(item, before, after) for key, item in value.items()}
    return [_replaced(item, before, after) for item in value] if isinstance(value, list) else value
