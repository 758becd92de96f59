"""Sentences about invalid fields, in the words of users and not of pydantic: what the field must be."""

from collections.abc import Mapping
from typing import Any

_LIST, _MAPPING = "Must be a list", "Must be a mapping with fields"
_TIME = "Must be a time with a time zone, such as 2026-01-01T00:00:00Z"
_BY_TYPE = {
    "missing": "Field required",
    "extra_forbidden": "Unknown field",
    "string_type": "Must be text",
    "string_unicode": "Must be text in UTF-8",
    "int_type": "Must be a whole number",
    "int_parsing": "Must be a whole number",
    "int_from_float": "Must be a whole number",
    "int_parsing_size": "Must be a smaller number",
    "float_type": "Must be a number",
    "float_parsing": "Must be a number",
    "finite_number": "Must be a finite number",
    "bool_type": "Must be true or false",
    "bool_parsing": "Must be true or false",
    "list_type": _LIST,
    "tuple_type": _LIST,
    "set_type": _LIST,
    "frozen_set_type": _LIST,
    "dict_type": _MAPPING,
    "mapping_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "none_required": "Must be null",
    "literal_error": "Must be {expected}",
    "enum": "Must be {expected}",
    "greater_than": "Must be greater than {gt}",
    "greater_than_equal": "Must be at least {ge}",
    "less_than": "Must be less than {lt}",
    "less_than_equal": "Must be at most {le}",
    "multiple_of": "Must be a multiple of {multiple_of}",
    "string_too_short": "Must have at least {min_length} characters",
    "string_too_long": "Must have at most {max_length} characters",
    "too_short": "Must have at least {min_length} items",
    "too_long": "Must have at most {max_length} items",
    "uuid_type": "Must be the whole id, which has 36 characters",
    "uuid_parsing": "Must be the whole id, which has 36 characters",
    "datetime_type": _TIME,
    "datetime_parsing": _TIME,
    "datetime_from_date_parsing": _TIME,
    "datetime_object_invalid": _TIME,
    "timezone_aware": _TIME,
    "url_parsing": "Must be a URL",
}
_BY_PATTERN = {
    r"^[A-Za-z0-9][A-Za-z0-9 ._\-]*$": "letters, digits, spaces and . _ -, and begin with a letter or a digit",
    r"^[A-Za-z0-9][A-Za-z0-9._\-]*$": "letters, digits and . _ -, and begin with a letter or a digit",
    r"^[a-z0-9][a-z0-9._\-]*$": "lowercase letters, digits and . _ -, and begin with a letter or a digit",
    r"^[a-z0-9][a-z0-9\-]*$": "lowercase letters, digits and -, and begin with a letter or a digit",
    r"^[A-Za-z0-9][\w./-]*$": "letters, digits and . _ - /, and begin with a letter or a digit",
    r"^\w[\w.-]*$": "letters, digits and . _ -, and begin with a letter or a digit",
}
_HUB_NAME = r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$"


def fault_text(error: Mapping[str, Any]) -> str:
    """Return the sentence about an error of pydantic: `{"type": ..., "ctx": ..., "msg": ...}`."""
    kind, context = str(error["type"]), error.get("ctx", {})
    if kind == "string_pattern_mismatch":
        return _of_pattern(context["pattern"])
    if kind in ("string_too_short", "too_short") and context["min_length"] == 1:
        return "Must not be empty"
    if kind == "too_long" and context["max_length"] == 0:
        return "Must be empty"
    if kind in _BY_TYPE:
        return _BY_TYPE[kind].format_map(context)
    return str(error["msg"]).removeprefix("Value error, ")


def _of_pattern(pattern: str) -> str:
    if pattern == _HUB_NAME:
        return "Must be a name of the Hugging Face hub, such as org/name"
    if pattern in _BY_PATTERN:
        return f"Must contain only {_BY_PATTERN[pattern]}"
    return f"Must match the pattern {pattern}"
