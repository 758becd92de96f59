"""Detects the format of a file's rows by their columns, so that no setting has to name it.

The required columns of all formats differ. A benchmark's format is considered only if `columns` names nothing: a user
who names columns means the plain format, or in a chat the column with the answer.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from calibrl_core.data import benchmark_formats, chat_format, plain_format, verl_format
from calibrl_core.data.row_checks import Row
from calibrl_core.data.schema import Columns, DataError, Example


@dataclass(frozen=True)
class RowFormat:
    """One format of rows."""

    name: str
    needs: tuple[str, ...]  # the columns that identify it
    read: Callable[[Row], Example]  # raises DataError


CHAT = RowFormat("OpenAI's chat format", ("messages",), chat_format.read)
# The first match wins: MathVista has the plain format's columns too; verl's files and chats can have any others.
FORMATS = (
    RowFormat("verl's format", ("prompt", "reward_model"), verl_format.read),
    CHAT,
    RowFormat("MathVista's format", ("question", "question_type", "answer"), benchmark_formats.mathvista),
    RowFormat("Geometry3K's format", ("problem", "answer"), benchmark_formats.geometry3k),
    RowFormat("Inter-GPS's format", ("problem_text", "choices", "answer"), benchmark_formats.geometry3k),
    RowFormat("the plain format", (Columns().question, Columns().answer), plain_format.read),
)


def detect_format(names: Collection[str], columns: Columns) -> RowFormat:
    """Return the format of rows with these columns.

    Raises:
        DataError: the columns fit no format; the message names them.
    """
    if columns != Columns():
        if set(CHAT.needs) <= set(names) and columns == Columns(answer=columns.answer):
            return CHAT
        form = RowFormat("the plain format", (columns.question, columns.answer), plain_format.read)
        missing = [repr(name) for name in form.needs if name not in names]
        if missing:
            named = " and ".join(missing)
            raise DataError(f"has no column {named}, which `columns` names; it has {_listed(names)}")
        return form
    for form in FORMATS:
        if set(form.needs) <= set(names):
            return form
    known = "; ".join(f"{form.name} ({', '.join(form.needs)})" for form in FORMATS)
    raise DataError(
        f"has the columns {_listed(names)}, which fit no known format: {known}. Name the columns: "
        "columns: {question: ..., answer: ...}"
    )


def check_format(form: RowFormat, names: Collection[str]) -> None:
    """Check that a row has the columns of the format.

    Raises:
        DataError: a column is missing.
    """
    missing = [name for name in form.needs if name not in names]
    if missing:
        other = next((other for other in FORMATS if set(other.needs) <= set(names)), None)
        hint = f": it has {other.name}, the first rows {form.name}; put them into two files" if other else ""
        raise DataError(f"column {missing[0]!r} is missing{hint}")


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(map(repr, names)))
