"""MathVista (arXiv 2310.02255), without experts."""

from decimal import Decimal
from typing import Any

from calibrl_core.data.formats.base import Need, Rank, RowFormat, answer, make_example, question
from calibrl_core.data.options import letter_of_text, read_options, with_options
from calibrl_core.data.row import Cell, Row
from calibrl_core.data.row_checks import question_text
from calibrl_core.data.schema import DataError, Example
from calibrl_core.data.truths import truth


def read(row: Row) -> Example:
    """Convert a row with `question`, `question_type` and `answer`.

    Optional columns: `pid`, `image` (a path), `decoded_image`, `choices`, `unit`, `precision`, `answer_type`,
    `metadata`. The example's data source is `metadata.task`.

    Raises:
        DataError: a cell is invalid.
    """
    asked, known = _asked(row, row.cell("answer", role="answer"))
    metadata, pid = row.cell("metadata").value, row.cell("pid").value
    return make_example(
        row,
        id=row.id if pid is None else f"{row.id}:{pid}",
        question=asked,
        answer=known,
        images=row.images("decoded_image", "image"),
        data_source=metadata.get("task") if isinstance(metadata, dict) else None,
    )


def _asked(row: Row, cell: Cell) -> tuple[str, str]:
    """Return the question, with its unit, options and form of answer, and the answer."""
    asked = question_text(row.cell("question", role="question"))
    choices = row.cell("choices")
    if unit := row.text("unit"):
        asked = f"{asked} (Unit: {unit})"
    if row.cell("question_type").value == "multi_choice":
        options = read_options(choices)
        if not options:
            raise DataError("column 'choices' must hold a list of at least two options")
        return with_options(asked, options), letter_of_text(cell, options)
    hint = _form_of_answer(row.cell("answer_type").value, row.cell("precision").value)
    return (f"{asked}\n{hint}" if hint else asked), truth(cell)


def _form_of_answer(kind: Any, precision: Any) -> str:
    """Return the required form of an answer in words, as in MathVista's own prompts; without it no answer would be
    equal.
    """
    if kind == "integer":
        return "Answer with a whole number."
    if kind == "float" and isinstance(precision, int | float | Decimal):
        return f"Round the answer to {precision:.0f} decimal place{'' if precision == 1 else 's'}."
    if kind == "list":
        return "Answer with a list, such as [1, 2, 3]."
    return ""


NEEDS = (question("question"), Need(("question_type",)), answer("answer"))
NO_ANSWER = "column 'answer' is empty: MathVista does not publish the answers of `test`; use `testmini`"
FORMATS = (RowFormat("mathvista", "MathVista's format", read, NEEDS, Rank.BENCHMARK, no_answer=NO_ANSWER),)
