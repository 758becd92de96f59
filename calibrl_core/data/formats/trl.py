"""TRL's formats: `prompt` as messages or text, with `completion`, or with the truth in `solution` or another column
(https://huggingface.co/docs/trl/dataset_formats).
"""

from dataclasses import replace

from calibrl_core.data.conversations import CHAT_ROLES, Conversation, expert_of, read_conversation
from calibrl_core.data.formats.base import ANSWER_COLUMNS, Need, Rank, RowFormat, conversation_example, question
from calibrl_core.data.row import Row
from calibrl_core.data.row_checks import question_text
from calibrl_core.data.schema import Example


def read(row: Row) -> Example:
    """Return the row's example.

    Raises:
        DataError: a cell is invalid.
    """
    cell = row.cell("prompt", role="question")
    if isinstance(cell.value, str) and not cell.value.lstrip().startswith("[{"):
        found = Conversation((), question_text(cell), row.images())
    else:
        found = read_conversation(row, cell, CHAT_ROLES, answered=False)
    expert = expert_of(row, row.cell("completion", "expert", role="expert"))
    return conversation_example(row, replace(found, expert=expert))


FORMATS = (
    RowFormat(
        "trl",
        "TRL's format",
        read,
        (question("prompt"), Need((*ANSWER_COLUMNS, "completion"), "answer")),
        Rank.BENCHMARK,
    ),
)
