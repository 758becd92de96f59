"""Rows in verl's schema, unchanged (https://verl.readthedocs.io/en/latest/preparation/prepare_data.html):

`prompt` (chat messages), `images`, `reward_model.ground_truth`, `data_source`, `extra_info`, and the two columns that
CalibRL's published loader adds: `solution`, the expert's trajectory, and `pass_ratio`.
"""

from typing import Any, cast, get_args

from calibrl_core.data.images import read_images
from calibrl_core.data.row_checks import Row, answer_text, pass_ratio
from calibrl_core.data.schema import DataError, Example, Role, Turn


def read(row: Row) -> Example:
    """Return the row's example.

    Raises:
        DataError: a cell is invalid.
    """
    values = row.values
    if values.get("videos"):
        raise DataError("column 'videos' holds videos, which training does not support: remove these rows")
    turns = _turns(values.get("prompt"))
    if turns[-1].role != "user" or not turns[-1].text:
        raise DataError("column 'prompt' must end with a message of the user")
    ratio = pass_ratio(values.get("pass_ratio"))
    expert = _expert(values.get("solution"))
    source = values.get("data_source")
    return Example(
        id=_id(row),
        question=turns[-1].text,
        answer=_ground_truth(values.get("reward_model")),
        images=read_images(values.get("images"), row.folder),
        expert=None if ratio is not None and ratio <= 0 else expert,
        earlier=tuple(turns[:-1]),
        data_source=None if source is None else str(source),
        pass_ratio=ratio,
    )


def _turns(prompt: Any) -> list[Turn]:
    if not isinstance(prompt, list) or not prompt:
        raise DataError("column 'prompt' must hold a list of messages, each with a role and content")
    return [_turn(message) for message in prompt]


def _turn(message: Any) -> Turn:
    role = message.get("role") if isinstance(message, dict) else None
    if role not in get_args(Role):
        raise DataError(f"column 'prompt': a message's role must be one of {', '.join(get_args(Role))}")
    return Turn(cast(Role, role), _text(message.get("content"), "prompt"))


def _text(content: Any, column: str) -> str:
    """Return a message's content, plain or in parts, as text with an `<image>` for each image part."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise DataError(f"column {column!r}: a message's content must be text or a list of parts")
    return "".join(_part(part, column) for part in content)


def _part(part: Any, column: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("image", "image_url"):
        return "<image>"
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise DataError(f"column {column!r}: a part of a message must be text, with `text`, or an image")


def _ground_truth(reward_model: Any) -> str:
    """Return `reward_model.ground_truth`; the first entry of a list."""
    if not isinstance(reward_model, dict):
        raise DataError("column 'reward_model' must hold an object with `ground_truth`")
    truth = reward_model.get("ground_truth")
    if isinstance(truth, list) and truth:
        truth = truth[0]
    return answer_text(truth, "reward_model.ground_truth")


def _expert(solution: Any) -> str | None:
    """Return the expert as the published loader reads it: the first entry of a list; the content of a message."""
    if isinstance(solution, list):
        solution = solution[0] if solution else None
    if isinstance(solution, dict):
        solution = solution.get("content")
    return None if solution is None else _text(solution, "solution") or None


def _id(row: Row) -> str:
    extra = row.values.get("extra_info")
    index = extra.get("index") if isinstance(extra, dict) else None
    return row.id if index is None else f"{row.id}:{index}"  # an index alone is not unique in merged files
