"""LLaMA-Factory's formats: ShareGPT's `conversations` with `from` and `value`, which LLaVA uses too, and Alpaca's
`instruction`, `input` and `output` (https://llamafactory.readthedocs.io/en/latest/getting_started/data_preparation.html).
"""

from dataclasses import replace

from calibrl_core.data.conversations import CHAT_ROLES, Conversation, expert_of, read_conversation
from calibrl_core.data.formats.base import NO_ANSWER, Need, Rank, RowFormat, conversation_example, question
from calibrl_core.data.formats.ms_swift import earlier_turns
from calibrl_core.data.row import Row
from calibrl_core.data.row_checks import question_text
from calibrl_core.data.schema import DataError, Example

ROLES = {**CHAT_ROLES, "human": CHAT_ROLES["user"], "gpt": CHAT_ROLES["assistant"], "model": CHAT_ROLES["assistant"]}


def read(row: Row) -> Example:
    """Return the example of a row with `conversations`. The column `system` is the first turn.

    Raises:
        DataError: a cell is invalid.
    """
    _refuse_tools(row)
    found = read_conversation(row, row.cell("conversations", role="question"), ROLES, answered=True)
    return conversation_example(row, replace(found, earlier=earlier_turns(row) + found.earlier))


def alpaca(row: Row) -> Example:
    """Return the example of a row with `instruction` and `output`.

    Raises:
        DataError: a cell is invalid.
    """
    _refuse_tools(row)
    asked, more = question_text(row.cell("instruction", role="question")), row.text("input")
    expert = expert_of(row, row.cell("output", role="expert"))
    found = Conversation(earlier_turns(row), f"{asked}\n{more}" if more else asked, row.images(), expert)
    return conversation_example(row, found)


def _refuse_tools(row: Row) -> None:
    if row.cell("tools").value:
        raise DataError("column 'tools' holds tools, which training does not support: remove these rows")


TITLE = "LLaMA-Factory's format"
FORMATS = (
    RowFormat("sharegpt", TITLE, read, (question("conversations"),), Rank.TRAINER, no_answer=NO_ANSWER),
    RowFormat(
        "sharegpt",
        TITLE,
        alpaca,
        (question("instruction"), Need(("output",), "expert")),
        Rank.TRAINER,
        no_answer=NO_ANSWER,
    ),
)
