"""Paths of fields of a training spec, such as `algorithm.guidance_coef`, checked against its JSON Schema."""

from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from typing import Any

from calibrl.schemas.specs import TrainSpec

Schema = dict[str, Any]
SHOWN_NAMES = 3  # similar field names in a message
SIMILARITY = 0.65  # lowest similarity of these names, 0 to 1


def check_path(path: str) -> str:
    """Return the path if a training spec has such a field. Items of lists have numbers: `rewards.0.weight`.

    Raises:
        ValueError: there is no such field; the message names similar ones.
    """
    schemas = [*_members(_spec_schema())]
    keys = path.split(".")
    for place, key in enumerate(keys):
        inner = [member for schema in schemas for field in _fields(schema, key) for member in _members(field)]
        if not inner:
            raise ValueError(_unknown(path, keys[:place], key, schemas))
        schemas = inner
    return path


@cache
def _spec_schema() -> Schema:
    return TrainSpec.model_json_schema()


def _members(schema: Schema) -> Iterator[Schema]:
    """Yield the members of a union, and of the unions in it, without references."""
    if "$ref" in schema:
        yield from _members(_spec_schema()["$defs"][schema["$ref"].rpartition("/")[2]])
    elif unions := [schema[key] for key in ("anyOf", "oneOf", "allOf") if key in schema]:
        yield from (member for union in unions for option in union for member in _members(option))
    else:
        yield schema


def _fields(schema: Schema, key: str) -> Iterator[Schema]:
    """Yield the schema of a field of a mapping or of an item of a list, if there is one."""
    if key in schema.get("properties", {}):
        yield schema["properties"][key]
    elif schema.get("type") == "object" and key and "properties" not in schema:  # a mapping with free keys, as labels
        yield {}
    elif schema.get("type") == "array" and key.isdecimal():
        yield schema.get("items", {})


def _unknown(path: str, before: list[str], key: str, schemas: list[Schema]) -> str:
    names = list(dict.fromkeys(name for schema in schemas for name in schema.get("properties", ())))
    place = f"{'.'.join(before)!r}" if before else "a training spec"
    if any(schema.get("type") == "array" for schema in schemas):
        return f"{path!r}: {place} is a list; name an item by its number from 0, such as {'.'.join([*before, '0'])}"
    if not names:
        return f"{path!r}: {place} has no fields"
    similar = get_close_matches(key, names, SHOWN_NAMES, SIMILARITY)
    remedy = f"did you mean {' or '.join(similar)}?" if similar else f"its fields are {', '.join(sorted(names))}"
    return f"{path!r}: {place} has no field {key!r}; {remedy}"
