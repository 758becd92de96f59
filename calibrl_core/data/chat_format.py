"""Rows of OpenAI's fine-tuning files: a conversation in `messages`, plus any columns that graders use.

If the last message is the assistant's, it is the expert. The answer for the verifiers is in the column that `columns`
names, or in `answer` or `reference_answer`. Without such a column it is the expert's answer.
"""

from typing import Any

from calibrl_core.data.images import read_images
from calibrl_core.data.row_checks import Row, answer_text
from calibrl_core.data.schema import Columns, DataError, Example, Role, Turn
from calibrl_core.verifiers.base import final_answer

ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
ANSWERS = ("answer", "reference_answer")  # columns that can hold it if `columns` names none


def read(row: Row) -> Example:
    """Return the row's example. Its answer is empty if the row has none.

    Raises:
        DataError: a cell is invalid.
    """
    values = row.values
    if values.get("tools") or values.get("functions"):
        raise DataError("column 'tools' holds tools, which training does not support: remove these rows")
    if values.get("images") is not None or values.get("image") is not None:
        raise DataError("images must be in 'messages', as image_url, and not in another column")
    messages = values.get("messages")
    if not isinstance(messages, list):
        raise DataError("column 'messages' must hold a list of messages, each with a role and content")
    images: list[bytes] = []
    turns = [_turn(message, images) for message in messages]
    expert = turns.pop().text if turns and turns[-1].role == "assistant" else None
    if not turns or turns[-1].role != "user" or not turns[-1].text:
        raise DataError("column 'messages' must end with a message of the user, or with one and the assistant's answer")
    if expert and messages[-1].get("weight") == 0:
        expert = None  # weight 0: the message must not be learned
    answer = _answer(row)
    return Example(
        id=row.id,
        question=turns[-1].text,
        answer=answer or _of_expert(expert),
        images=tuple(images),
        expert=expert or None,
        earlier=tuple(turns[:-1]),
        asks_for_answer=bool(answer) or not expert or "<answer>" in expert,
    )


def _turn(message: Any, images: list[bytes]) -> Turn:
    """Return a message as a turn. Its images are appended to `images`."""
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(role, str) or role not in ROLES:
        raise DataError(f"column 'messages': a message's role must be one of {', '.join(ROLES)}")
    if message.get("tool_calls") or message.get("function_call"):
        raise DataError("column 'messages' holds a tool call, which training does not support: remove these rows")
    content = message.get("content")
    if isinstance(content, str):
        return Turn(ROLES[role], content)
    if not isinstance(content, list):
        raise DataError("column 'messages': a message's content must be text or a list of parts")
    return Turn(ROLES[role], "".join(_part(part, role, images) for part in content))


def _part(part: Any, role: str, images: list[bytes]) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind != "image_url" or role == "assistant":
        raise DataError(
            "column 'messages': a part of a message must be text, with `text`, or (not in the assistant's messages) an "
            "image, with `image_url`"
        )
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str) or not url.startswith("data:"):
        raise DataError("column 'messages': an image must be a data: URL with base64; nothing is downloaded")
    images += read_images(url, None)
    return "<image>"


def _answer(row: Row) -> str:
    """Return the answer in the row's columns, or an empty text."""
    named = row.columns.answer
    if named != Columns().answer:
        return answer_text(row.values.get(named), named)
    column = next((name for name in ANSWERS if row.values.get(name) is not None), None)
    return answer_text(row.values[column], column) if column else ""


def _of_expert(expert: str | None) -> str:
    if expert is None:
        return ""
    answer = final_answer(expert)
    return expert.strip() if answer is None else answer
