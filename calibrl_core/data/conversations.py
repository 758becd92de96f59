"""Conversations in cells: messages with a role and content, as text or in parts, with their images and the expert."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from calibrl_core.data.image_cells import parsed_text
from calibrl_core.data.images import read_images
from calibrl_core.data.row import Cell, Row, has_content
from calibrl_core.data.schema import DataError, Role, Turn
from calibrl_core.data.truths import composed_expert

VERL_ROLES: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
CHAT_ROLES: Mapping[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_REASONING = ("reasoning_content", "reasoning", "thinking")  # keys of a message with the thoughts of the assistant
_OTHERS, _OTHER_KINDS = re.compile("video|audio"), {"video": "videos", "audio": "sounds"}  # types of refused parts
_TEXTS, _IMAGES = ("text", "input_text", "output_text"), ("image", "image_url", "input_image")  # types of parts


@dataclass(frozen=True)
class Conversation:
    """Messages up to the last one of the user, and the assistant's answer to it."""

    earlier: tuple[Turn, ...]
    question: str
    images: tuple[bytes, ...]  # in order
    expert: str | None = None


def read_conversation(row: Row, cell: Cell, roles: Mapping[str, Role], *, answered: bool) -> Conversation:
    """Return the conversation of a cell, a list or its JSON. Its images are in its parts, or in the row's columns.

    Args:
        roles: role of a turn by the role of a message.
        answered: the last message can be the assistant's, which is the expert (unless it has `weight: 0`).

    Raises:
        DataError: a message is invalid, the user's is not the last, or both places have images.
    """
    messages = _messages(cell)
    found: list[bytes] = []
    turns = [_turn(row, cell.column, message, roles, found) for message in messages]
    has_expert = answered and bool(turns) and turns[-1].role == "assistant"
    expert = expert_text(messages[-1], turns.pop().text) if has_expert else None
    if not turns or turns[-1].role != "user" or not turns[-1].text:
        ending = ", or with one and the assistant's answer" if answered else ""
        raise DataError(f"column {cell.column!r} must end with a message of the user{ending}")
    if expert and messages[-1].get("weight") == 0:
        expert = None  # weight 0: the message must not be learned
    beside = row.images()
    if found and beside:
        raise DataError(f"column {cell.column!r} and another column both hold images: keep them in one of the two")
    return Conversation(tuple(turns[:-1]), turns[-1].text, tuple(found) or beside, expert or None)


def expert_of(row: Row, cell: Cell) -> str | None:
    """Return the expert of a cell: text, a message, a list of texts or messages (the first of the assistant), or a
    chat (the last of the assistant).

    Raises:
        DataError: the cell holds something else, or messages of which none is the assistant's.
    """
    value = parsed_text(cell.value) if isinstance(cell.value, str) and cell.value.startswith('[{"') else cell.value
    if isinstance(value, list | tuple):
        value = _assistant_message(cell.column, value) if value else None
    if value is None or isinstance(value, str):
        return value or None
    if not isinstance(value, dict):
        raise DataError(f"column {cell.column!r} must hold the expert: text, a message, or a list of them")
    content = value.get("content", value.get("value"))
    return None if content is None else expert_text(value, _text(row, cell.column, content, "assistant", [])) or None


def with_reasoning(row: Row, expert: str | None, answer: str) -> str | None:
    """Return the expert of a row with the reasoning of its column `reasoning_content`; without an expert, the reasoning
    with the answer.
    """
    reasoning = row.text(_REASONING[0])
    return expert_text({_REASONING[0]: reasoning}, expert) if expert else composed_expert(reasoning, answer)


def expert_text(message: Mapping[str, Any], content: str) -> str:
    """Return an assistant's message with its reasoning in `<think>` before the content."""
    thought = next((message[key] for key in _REASONING if isinstance(message.get(key), str) and message[key]), "")
    return f"<think>{thought.strip()}</think>\n{content}" if thought.strip() and "<think>" not in content else content


def _assistant_message(column: str, values: list[Any] | tuple[Any, ...]) -> Any:
    """Return the assistant's message of a list, or its first entry if no entry has a role."""
    roles = [_role(value) for value in values if isinstance(value, dict)]
    said = [value for value in values if isinstance(value, dict) and _role(value) in ("assistant", "gpt", "model")]
    if any(roles) and not said:
        raise DataError(f"column {column!r} holds messages, but none of the assistant, which the expert must be")
    is_chat = any(role not in ("assistant", "gpt", "model", None) for role in roles)
    return said[-1] if is_chat else said[0] if said else values[0]


def _messages(cell: Cell) -> list[Any]:
    value = parsed_text(cell.value) if isinstance(cell.value, str) else cell.value
    if not isinstance(value, list) or not value:
        raise DataError(
            f"column {cell.column!r} must hold a list of messages, each with a role and content, and must end with a "
            "message of the user"
        )
    return value


def _role(message: Any) -> Any:
    return message.get("role", message.get("from")) if isinstance(message, dict) else None


def _turn(row: Row, column: str, message: Any, roles: Mapping[str, Role], images: list[bytes]) -> Turn:
    """Return a message as a turn. Its images are appended to `images`."""
    role = _role(message)
    if not isinstance(role, str) or role not in roles:
        raise DataError(f"column {column!r}: a message's role must be one of {', '.join(roles)}")
    if message.get("tool_calls") or message.get("function_call"):
        raise DataError(f"column {column!r} holds a tool call, which training does not support: remove these rows")
    content = message.get("content", message.get("value"))
    return Turn(roles[role], _text(row, column, content, roles[role], images))


def _text(row: Row, column: str, content: Any, role: Role, images: list[bytes]) -> str:
    """Return a message's content, plain or in parts, as text with an `<image>` for each image part."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise DataError(f"column {column!r}: a message's content must be text or a list of parts")
    return "".join(_part(row, column, part, role, images) for part in content)


def _part(row: Row, column: str, part: Any, role: Role, images: list[bytes]) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(part, dict) and isinstance(part.get("text"), str) and kind in (None, *_TEXTS):
        return str(part["text"])
    if isinstance(kind, str) and (found := _OTHERS.search(kind)):
        raise DataError(
            f"column {column!r} holds {_OTHER_KINDS[found[0]]}, which training does not support: remove these rows"
        )
    if kind not in _IMAGES or role == "assistant":
        raise DataError(
            f"column {column!r}: a part of a message must be text, with `text`, or (not in the assistant's messages) "
            "an image, with `image_url` or `image`"
        )
    payload = {key: value for key, value in part.items() if key not in ("type", "text") and has_content(value)}
    if payload.keys() - {"detail", "min_pixels", "max_pixels", "resized_height", "resized_width"}:
        images += read_images(payload, row.folder)
    return "<image>"
