"""Finds the format of a source's rows: the one that `data.format` names, or the first one that their columns fit."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from calibrl_core.data.formats import FORMATS
from calibrl_core.data.formats.base import RowFormat
from calibrl_core.data.schema import AUTO, ColumnRole, Columns, DataError

MOST_NAMED = 4  # formats in a message
_ROLES: tuple[ColumnRole, ...] = (
    "question",
    "answer",
)  # that every row needs


def detect_format(
    names: Collection[str],
    columns: Columns,
    chosen: str = AUTO,
    rows: Sequence[Mapping[str, Any]] = (),
    *,
    answers: bool = True,
) -> RowFormat:
    """Return the format of rows with these columns.

    Args:
        columns: names that replace those of the format.
        chosen: name of the format; AUTO: any.
        rows: first rows, for formats that are recognised by their content.
        answers: rows need an answer. Otherwise the column of a format may be missing.

    Raises:
        DataError: the columns fit no format; the message names them.
    """
    absent = [repr(named) for role in _ROLES if (named := columns.named(role)) and named not in names]
    if absent:
        raise DataError(f"has no column {' and '.join(absent)}, which `columns` names; it has {_listed(names)}")
    if chosen != AUTO:
        return _chosen(names, columns, chosen, answers)
    for needed in (True,) if answers else (True, False):
        for form in FORMATS:
            if form.detected(names, columns, rows, answers=needed):
                return form
    nearest = sorted(FORMATS, key=lambda form: (len(form.missing(names, columns)), len(form.marks)))[:MOST_NAMED]
    known = "; ".join(dict.fromkeys(f"{form.title} ({_needed(form)})" for form in nearest))
    raise DataError(
        f"has the columns {_listed(names)}, which fit no known format: {known}. Name the columns: "
        "columns: {question: ..., answer: ...}"
    )


def wrapped_rows(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Return that the only row can be an object around all rows, with the remedy; None if it is a row."""
    if len(rows) != 1:
        return None
    (row,) = rows
    name = next((name for name, cell in row.items() if _is_list_of_rows(cell)), None)
    if name is None and not all(isinstance(cell, dict) for cell in row.values()):
        return None
    what = f"with a list in {name!r}" if name else f"of {len(row)} objects, such as {next(iter(row))!r}"
    return (
        f"is one object {what}: if these are the rows, write them as a list, or one object per line; if not, name the "
        "columns: columns: {question: ..., answer: ...}"
    )


def _is_list_of_rows(cell: Any) -> bool:
    """Return if a cell is a list of objects which are no messages."""
    if not isinstance(cell, list) or not cell:
        return False
    return all(isinstance(entry, dict) and not {"role", "from"} & entry.keys() for entry in cell)


def check_format(form: RowFormat, names: Collection[str], columns: Columns, *, answers: bool) -> None:
    """Check that a row has the columns of the format. `answers`: as of `detect_format`.

    Raises:
        DataError: a column is missing.
    """
    missing = form.missing(names, columns, answers=answers)
    if not missing:
        return
    other = next((other for other in FORMATS if other.detected(names, columns)), None)
    hint = f": it has {other.title}, the first rows {form.title}; put them into two files" if other else ""
    raise DataError(f"column {missing[0]!r} is missing{hint}")


def _chosen(names: Collection[str], columns: Columns, chosen: str, answers: bool) -> RowFormat:
    variants = [form for form in FORMATS if form.name == chosen]
    form = min(variants, key=lambda form: (len(form.missing(names, columns)), not form.detected(names, columns)))
    if missing := form.missing(names, columns, answers=answers):
        raise DataError(
            f"has no column {' and '.join(map(repr, missing))}, which format: {chosen} needs; it has {_listed(names)}"
        )
    return form


def _needed(form: RowFormat) -> str:
    return ", ".join(need.names[0] for need in form.needs)


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(map(repr, names)))
