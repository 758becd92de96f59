"""The plain format: `question`, `answer`, and optional columns for images, options, expert and pass ratio."""

from calibrl_core.data.conversations import expert_text
from calibrl_core.data.formats.base import Rank, RowFormat, answer, make_example, question
from calibrl_core.data.options import with_row_options
from calibrl_core.data.row import Row
from calibrl_core.data.row_checks import question_text
from calibrl_core.data.schema import DataError, Example
from calibrl_core.data.truths import composed_expert


def read(row: Row) -> Example:
    """Return the row's example.

    Raises:
        DataError: a cell is invalid.
    """
    asked = question_text(row.cell("question", role="question"))
    asked, known = with_row_options(row, asked, row.cell("answer", role="answer"))
    return make_example(
        row,
        question=asked,
        answer=known,
        images=row.images(),
        expert=_expert(row, known),
    )


def _expert(row: Row, known: str) -> str | None:
    """Return the expert, with the reasoning of a column of its own; or the reasoning with the answer."""
    column, expert = row.cell("expert", role="expert")
    if expert is not None and not isinstance(expert, str):
        raise DataError(f"column {column!r} must hold text or be empty")
    reasoning = row.text("reasoning_content")
    if expert:
        return expert_text({"reasoning_content": reasoning}, expert)
    return composed_expert(reasoning, known)


FORMATS = (RowFormat("plain", "the plain format", read, (question("question"), answer("answer")), Rank.GENERAL),)
