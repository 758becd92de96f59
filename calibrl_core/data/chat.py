"""Rows of OpenAI's fine-tuning files: a conversation in `messages`, and beside it whatever columns graders name.

A last message of the assistant's is the expert. What verifiers compare with stands in a column: the one that is named,
or `answer` or `reference_answer`. Where there is none the expert's answer is it.
"""

from typing import Any

from calibrl_core.data.cells import Row, answer_text
from calibrl_core.data.images import read_images
from calibrl_core.data.schema import Columns, DataError, Example, Role, Turn
from calibrl_core.verifiers.base import final_answer

ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
ANSWERS = ("answer", "reference_answer")  # columns that hold it, where none is named


def read(row: Row) -> Example:
    """The row's example; its answer is empty where the row says nothing of it. Raises DataError."""
    values = row.values
    if values.get("tools") or values.get("functions"):
        raise DataError("column 'tools' holds tools, which can't be trained on here")
    if values.get("images") is not None or values.get("image") is not None:
        raise DataError("beside 'messages' no column may hold images: put them into the messages, as image_url")
    messages = values.get("messages")
    if not isinstance(messages, list):
        raise DataError("column 'messages' must hold a list of messages, each with a role and content")
    images: list[bytes] = []
    turns = [_turn(message, images) for message in messages]
    expert = turns.pop().text if turns and turns[-1].role == "assistant" else None
    if not turns or turns[-1].role != "user" or not turns[-1].text:
        raise DataError("column 'messages' must end with a message of the user's, or with one and its answer")
    if expert and messages[-1].get("weight") == 0:
        expert = None  # not to be learned from
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
    """A message; its images are added to those of the messages before it."""
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(role, str) or role not in ROLES:
        raise DataError(f"column 'messages': a message's role must be one of {', '.join(ROLES)}")
    if message.get("tool_calls") or message.get("function_call"):
        raise DataError("column 'messages' holds a call of a tool, which can't be trained on here")
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
            "column 'messages': a part of a message must be text, with its `text`, or, but not in the assistant's, an "
            "image, with its `image_url`"
        )
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str) or not url.startswith("data:"):
        raise DataError("column 'messages': an image must be a data: address with base64; nothing is downloaded")
    images += read_images(url, None)
    return "<image>"


def _answer(row: Row) -> str:
    """What the row's columns say of it; empty: nothing."""
    named = row.columns.answer
    if named != Columns().answer:
        return answer_text(row.values.get(named), named)
    found = next((name for name in ANSWERS if row.values.get(name) is not None), None)
    return answer_text(row.values[found], found) if found else ""


def _of_expert(expert: str | None) -> str:
    if expert is None:
        return ""
    answer = final_answer(expert)
    return expert.strip() if answer is None else answer
