"""EasyR1's format (https://github.com/hiyouga/EasyR1): `problem`, `answer` and `images`."""

from calibrl_core.data.conversations import expert_of, with_reasoning
from calibrl_core.data.formats.base import Rank, RowFormat, answer, make_example, question
from calibrl_core.data.options import with_row_options
from calibrl_core.data.row import Row
from calibrl_core.data.row_checks import question_text
from calibrl_core.data.schema import Example


def read(row: Row) -> Example:
    """Return the row's example.

    Raises:
        DataError: a cell is invalid.
    """
    asked = question_text(row.cell("problem", role="question"))
    asked, known = with_row_options(row, asked, row.cell("answer", role="answer"))
    return make_example(
        row,
        question=asked,
        answer=known,
        images=row.images(),
        expert=with_reasoning(row, expert_of(row, row.cell("expert", role="expert")), known),
    )


FORMATS = (RowFormat("easyr1", "EasyR1's format", read, (question("problem"), answer("answer")), Rank.BENCHMARK),)
