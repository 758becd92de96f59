"""OpenAI's files of fine-tuning and of reinforcement fine-tuning: a conversation in `messages`.

If the last message is the assistant's, it is the expert, with `reasoning_content` in <think>. The same columns with
`images` beside them are ms-swift's format.
"""

from calibrl_core.data.conversations import CHAT_ROLES, read_conversation
from calibrl_core.data.formats.base import NO_ANSWER, Rank, RowFormat, conversation_example, question
from calibrl_core.data.row import Row
from calibrl_core.data.schema import DataError, Example


def read(row: Row) -> Example:
    """Return the row's example. Its answer is empty if the row has none.

    Raises:
        DataError: a cell is invalid.
    """
    if row.cell("tools").value or row.cell("functions").value:
        raise DataError("column 'tools' holds tools, which training does not support: remove these rows")
    cell = row.cell("messages", role="question")
    return conversation_example(row, read_conversation(row, cell, CHAT_ROLES, answered=True))


FORMATS = (
    RowFormat("openai", "OpenAI's chat format", read, (question("messages"),), Rank.TRAINER, no_answer=NO_ANSWER),
)
