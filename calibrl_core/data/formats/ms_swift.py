"""ms-swift's formats: `messages` with `images` beside them, or `query` and `response`
(https://swift.readthedocs.io/en/latest/Customization/Custom-dataset.html).
"""

from calibrl_core.data.conversations import Conversation, expert_of
from calibrl_core.data.formats import openai
from calibrl_core.data.formats.base import NO_ANSWER, Need, Rank, RowFormat, conversation_example, question
from calibrl_core.data.row import IMAGE_COLUMNS, Row
from calibrl_core.data.row_checks import question_text
from calibrl_core.data.schema import DataError, Example, Turn


def read(row: Row) -> Example:
    """Return the example of a row with `query` and `response`. Optional columns: `system`, `history` (pairs of a query
    and a response), and those of the answer.

    Raises:
        DataError: a cell is invalid.
    """
    asked = question_text(row.cell("query", role="question"))
    expert = expert_of(row, row.cell("response", role="expert"))
    return conversation_example(row, Conversation(earlier_turns(row), asked, row.images(), expert))


def earlier_turns(row: Row) -> tuple[Turn, ...]:
    """Return the turns of the columns `system` and `history`.

    Raises:
        DataError: `history` holds something else than pairs of texts.
    """
    system, history = row.text("system"), row.cell("history").value or []
    turns = [Turn("system", system)] if system else []
    for pair in history if isinstance(history, list) else [history]:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise DataError("column 'history' must hold a list of pairs, each of a query and a response")
        turns += [Turn("user", pair[0]), Turn("assistant", pair[1])]
    return tuple(turns)


TITLE = "ms-swift's format"
FORMATS = (
    RowFormat(
        "ms-swift",
        TITLE,
        openai.read,
        (question("messages"),),
        Rank.TRAINER,
        marks=(IMAGE_COLUMNS,),
        no_answer=NO_ANSWER,
    ),
    RowFormat(
        "ms-swift", TITLE, read, (question("query"), Need(("response",), "expert")), Rank.TRAINER, no_answer=NO_ANSWER
    ),
)
