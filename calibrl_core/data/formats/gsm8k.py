"""GSM8K (arXiv 2110.14168): `answer` holds the steps and, after `####`, the number."""

from collections.abc import Mapping, Sequence
from typing import Any

from calibrl_core.data.formats import plain
from calibrl_core.data.formats.base import Rank, RowFormat, make_example
from calibrl_core.data.options import with_row_options
from calibrl_core.data.row import Row
from calibrl_core.data.row_checks import question_text
from calibrl_core.data.schema import Example
from calibrl_core.data.truths import composed_expert, steps_before_hashes


def read(row: Row) -> Example:
    """Return the row's example. The steps, without their annotations, and the number are the expert.

    Raises:
        DataError: a cell is invalid.
    """
    cell = row.cell("answer", role="answer")
    asked, known = with_row_options(row, question_text(row.cell("question", role="question")), cell)
    return make_example(
        row,
        question=asked,
        answer=known,
        images=row.images(),
        expert=composed_expert(steps_before_hashes(str(cell.value)), known),
    )


def _ends_with_hashes(rows: Sequence[Mapping[str, Any]]) -> bool:
    answers = [row.get("answer") for row in rows]
    return bool(answers) and all(isinstance(text, str) and "####" in text for text in answers)


NEEDS = plain.FORMATS[0].needs
FORMATS = (RowFormat("gsm8k", "GSM8K's format", read, NEEDS, Rank.BENCHMARK, fits=_ends_with_hashes),)
