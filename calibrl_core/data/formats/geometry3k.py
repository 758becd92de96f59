"""Geometry3K (arXiv 2105.04165): in Inter-GPS's columns with choices, or in EasyR1's columns on the hub."""

from string import ascii_uppercase

from calibrl_core.data.formats import easyr1
from calibrl_core.data.formats.base import Need, Rank, RowFormat, answer, make_example, question
from calibrl_core.data.options import read_options, with_options
from calibrl_core.data.row import Row
from calibrl_core.data.row_checks import answer_text, question_text
from calibrl_core.data.schema import DataError, Example


def read(row: Row) -> Example:
    """Convert a row of Inter-GPS: `problem_text`, `choices`, `answer` (a letter), `image`, `problem_type_goal`.

    Raises:
        DataError: a cell is invalid.
    """
    options = read_options(row.cell("choices"))
    cell = row.cell("answer", role="answer")
    known = answer_text(cell).strip().strip("()").upper()
    if known and known not in tuple(ascii_uppercase[: len(options)]):
        raise DataError(f"column {cell.column!r} ({known!r}) must be the letter of one of the {len(options)} choices")
    goals = row.cell("problem_type_goal").value
    return make_example(
        row,
        question=with_options(question_text(row.cell("problem_text", role="question")), options),
        answer=known,
        images=row.images(),
        data_source=", ".join(map(str, goals)) if isinstance(goals, list) and goals else None,
    )


INTER_GPS = (question("problem_text"), Need(("choices",)), answer("answer"))
FORMATS = (
    RowFormat("geometry3k", "Inter-GPS's format", read, INTER_GPS, Rank.BENCHMARK),
    RowFormat("geometry3k", "Geometry3K's format", easyr1.read, easyr1.FORMATS[0].needs, Rank.BENCHMARK),
)
