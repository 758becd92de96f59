"""Paths of fields of a spec, such as `algorithm.guidance_coef`: the check against the schema of a training spec, and
changes of a spec by path.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from calibrl.schemas.field_names import Schema, fields, members, similar_names
from calibrl.schemas.specs import TrainSpec

SOURCES = ("builtin", "path", "hub", "dataset", "from_job")  # a model or dataset has exactly one of these
# Fields of some sources only. They are removed together with their source.
OF_SOURCES = {
    "split": ("builtin", "hub"),
    "experts": ("builtin",),
    "columns": ("path", "hub"),
    "format": ("path", "hub", "dataset"),
    "config": ("hub",),
    "image_files": ("path",),
    "revision": ("hub",),
    "answer": ("dataset",),
    "checkpoint": ("from_job",),
}
OF_ANY_TYPE = {"weight"}  # fields of a mapping that stay if its type changes


def check_path(path: str) -> str:
    """Return the path if a training spec has such a field. Items of lists have numbers: `rewards.0.weight`.

    Raises:
        ValueError: there is no such field; the message names similar ones.
    """
    fields_at(path)
    return path


def fields_at(path: str) -> list[Schema]:
    """Return the schemas of the field at a path of a training spec: several if members of a union have such a field.
    `spec_schema` has the definitions.

    Raises:
        ValueError: there is no such field; the message names similar ones.
    """
    root = spec_schema()
    found = [root]
    keys = path.split(".")
    for place, key in enumerate(keys):
        schemas = [member for field in found for member in members(field, root)]
        found = [field for schema in schemas for field in fields(schema, key)]
        if not found:
            raise ValueError(_unknown(path, keys[:place], key, schemas))
    return found


@cache
def spec_schema() -> Schema:
    """Return the JSON Schema of a training spec."""
    return TrainSpec.model_json_schema()


def _unknown(path: str, before: list[str], key: str, schemas: list[Schema]) -> str:
    names = list(dict.fromkeys(name for schema in schemas for name in schema.get("properties", ())))
    place = f"{'.'.join(before)!r}" if before else "a training spec"
    if any(schema.get("type") == "array" for schema in schemas):
        return f"{path!r}: {place} is a list; name an item by its number from 0, such as {'.'.join([*before, '0'])}"
    if not names:
        return f"{path!r}: {place} has no fields"
    similar = similar_names(key, names)
    remedy = f"did you mean {' or '.join(similar)}?" if similar else f"its fields are {', '.join(sorted(names))}"
    return f"{path!r}: {place} has no field {key!r}; {remedy}"


def set_fields(spec: Any, changes: Mapping[str, Any]) -> None:
    """Set each field `a.b.0.c` of a spec, sources and types first: a new source removes fields of the old one, a new
    type all of them. Missing mappings are created.

    Raises:
        ValueError: a path leads nowhere; the message begins with the path.
    """
    for path in sorted(changes, key=lambda path: path.rpartition(".")[2] not in (*SOURCES, "type")):
        _set_field(spec, path, changes[path])


def _set_field(spec: Any, path: str, value: Any) -> None:
    keys = path.split(".")
    place: Any = spec
    for key in keys[:-1]:
        place = place.setdefault(key, {}) if isinstance(place, dict) else _item(place, key, path)
    if isinstance(place, dict):
        if keys[-1] == "type" and place.get("type", value) != value and "labels" not in keys:
            for other in place.keys() - OF_ANY_TYPE:  # settings of the old type
                place.pop(other)
        if keys[-1] in SOURCES:  # `model.path=...` replaces `{builtin: ...}` of the file
            others = [field for field, sources in OF_SOURCES.items() if keys[-1] not in sources]
            for other in (*SOURCES, *others):
                place.pop(other, None)
        place[keys[-1]] = value
    else:
        _item(place, keys[-1], path)
        place[int(keys[-1])] = value


def _item(container: Any, key: str, path: str) -> Any:
    if not isinstance(container, list):
        raise ValueError(f"{path!r}: the value before {key!r} in the spec is not a mapping or a list")
    if not key.isdecimal() or int(key) >= len(container):
        raise ValueError(f"{path!r}: {key!r} is not an index of a list of {len(container)} items (from 0)")
    return container[int(key)]
