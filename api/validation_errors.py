"""Conversion of Pydantic's errors: each field has the name that the user wrote."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from calibrl.schemas.fault_texts import fault_text
from calibrl.schemas.field_names import Schema, suggestions
from jobs.errors import FieldError

LONGEST = 1_000  # maximum characters of a field's name and of its message
Location = tuple[int | str, ...]
# A check of several fields names the field that should change: "steps: set steps or epochs".
_FIELD_FIRST = re.compile(r"(?P<field>[a-z]\w*(\.\w+)*): (?P<message>.+)", re.DOTALL)


def field_errors(
    errors: Sequence[Mapping[str, Any]], body: Any, schema: Callable[[], Schema] | None = None
) -> list[FieldError]:
    """Return the errors of a request: `("body", "train", "steps")` becomes `steps`, `("query", "limit")` `limit`.

    `schema` returns the JSON Schema of the body, by which unknown fields get suggestions.
    """
    return [_field_error(error, body, schema) for error in errors if not _follows_from_items(error, errors)]


def _follows_from_items(error: Mapping[str, Any], errors: Sequence[Mapping[str, Any]]) -> bool:
    # Pydantic counts a list's items after it has left out the bad ones, which have errors of their own.
    at: Location = error["loc"]
    return error["type"] == "too_short" and any(
        len(other["loc"]) > len(at) and other["loc"][: len(at)] == at for other in errors
    )


def _field_error(error: Mapping[str, Any], body: Any, schema: Callable[[], Schema] | None) -> FieldError:
    kind, context = error["type"], error.get("ctx", {})
    source, *rest = error["loc"]
    location = tuple(rest)
    if source == "body":
        location = _without_tags(location, body, last_is_missing=kind == "missing")
    message = fault_text(error)
    if kind == "extra_forbidden" and source == "body" and schema and (meant := suggestions(schema(), body, location)):
        message = f"Unknown field: did you mean {' or '.join(meant)}?"
    if kind == "value_error" and (named := _FIELD_FIRST.fullmatch(message)):
        parts = tuple(named["field"].split("."))
        location = location if location[-len(parts) :] == parts else (*location, *parts)
        message = named["message"]
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        location += (context["discriminator"].strip("'"),)
        message = f"Must be one of {context['expected_tags']}" if "expected_tags" in context else "Field required"
    field = ".".join(str(part) for part in location) or str(source)
    return FieldError(field[:LONGEST], message[:LONGEST])  # both can contain input


def _without_tags(location: Location, value: Any, *, last_is_missing: bool) -> Location:
    """Return the location without the tags that pydantic inserts for the chosen member of a union.

    A tag may look like a field ({builtin: digits} is chosen by its field `builtin`), so of all readings the one that
    finds most parts in the body wins, and of those the one that takes the earliest part for a tag.
    """
    if not location:
        return ()
    head, rest = location[0], location[1:]
    if not rest and last_is_missing:
        return (head,)
    as_tag = _without_tags(rest, value, last_is_missing=last_is_missing)
    if not _has(value, head):
        return as_tag
    as_field = (head, *_without_tags(rest, value[head], last_is_missing=last_is_missing))
    return as_field if len(as_field) > len(as_tag) else as_tag


def _has(value: Any, part: int | str) -> bool:
    if isinstance(value, dict):
        return part in value
    return isinstance(value, list) and isinstance(part, int) and part < len(value)
