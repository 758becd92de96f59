"""EasyR1's format (https://github.com/hiyouga/EasyR1): `problem`, `answer` and `images`."""

from calibrl_core.data.conversations import expert_of
from calibrl_core.data.formats.base import Rank, RowFormat, answer, make_example, question
from calibrl_core.data.row import Row
from calibrl_core.data.row_checks import question_text
from calibrl_core.data.schema import Example
from calibrl_core.data.truths import truth


def read(row: Row) -> Example:
    """Return the row's example.

    Raises:
        DataError: a cell is invalid.
    """
    return make_example(
        row,
        question=question_text(row.cell("problem", role="question")),
        answer=truth(row.cell("answer", role="answer")),
        images=row.images(),
        expert=expert_of(row, row.cell("expert", role="expert")),
    )


FORMATS = (RowFormat("easyr1", "EasyR1's format", read, (question("problem"), answer("answer")), Rank.BENCHMARK),)
