"""Schemas that generators of clients can read. Those of openapi-generator write programs that do not compile for a
boolean constant, for a union that has a list among its members, for a union without a name in a list or map, for the
default of a union or of a list of objects, and for names such as NewUser beside User, which Go needs for itself.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

Schema = dict[str, Any]
REFERENCE = "#/components/schemas/"
INT32 = 2**31 - 1  # the largest integer without a format in Go and Java
UNIONS = {  # names of unions, by their first member
    "BuiltinData": "AnyData",
    "BuiltinModel": "AnyModel",
    "MathReward": "AnyReward",
    "StringCheckGrader": "AnyGrader",
}
KEPT = ("title", "description", "default")


def simplify(document: dict[str, Any]) -> None:
    """Rewrite the schemas of a document in place. What they then say is true, but not all that was said."""
    schemas: dict[str, Schema] = document["components"]["schemas"]
    named: dict[str, Schema] = {}
    for schema in schemas.values():
        for part in list(_parts(schema)):
            _free_lists(part)
            _say_default(part)
            for place in ("items", "additionalProperties"):
                if isinstance(part.get(place), dict):
                    part[place] = _with_name(part[place], named)
            fields = part.get("properties", {})
            fields |= {name: _with_name(field, named) for name, field in fields.items()}
            if isinstance(part.get("const"), bool):
                part.pop("const")
    schemas |= named
    for part in _parts(document):
        if part.get("type") == "integer" and part.get("maximum", INT32 + 1) > INT32:
            part.setdefault("format", "int64")
    _rename(document, {name: f"{name[3:]}Request" for name in schemas if name[:3] == "New" and name[3:] in schemas})


def _rename(document: dict[str, Any], names: Mapping[str, str]) -> None:
    schemas = document["components"]["schemas"]
    for old, new in names.items():
        schemas[new] = schemas.pop(old)
    references = {REFERENCE + old: REFERENCE + new for old, new in names.items()}
    for part in _parts(document):
        if isinstance(part.get("$ref"), str):
            part["$ref"] = references.get(part["$ref"], part["$ref"])


def _parts(schema: Any) -> Iterator[Schema]:
    """Yield a schema and all schemas in it, the outer ones first."""
    if isinstance(schema, dict):
        yield schema
        for key, value in schema.items():
            if key not in ("default", "example", "examples"):
                yield from _parts(value)
    elif isinstance(schema, list):
        for one in schema:
            yield from _parts(one)


def _free_lists(schema: Schema) -> None:
    """Let a union with a list among its members be any value."""
    choices = [one for one in schema.get("anyOf") or schema.get("oneOf") or () if one.get("type") != "null"]
    if len(choices) > 1 and any(one.get("type") == "array" for one in choices):
        members = ", ".join(one["$ref"].removeprefix(REFERENCE) if "$ref" in one else one["type"] for one in choices)
        kept = {key: schema[key] for key in KEPT if key in schema}
        schema.clear()
        schema |= kept
        schema["description"] = f"{kept.get('description', '')} One of: {members}.".strip()


def _say_default(schema: Schema) -> None:
    """Move the default of a union or of a list of objects into the description."""
    choices = [one for one in schema.get("anyOf") or schema.get("oneOf") or () if one.get("type") != "null"]
    default = schema.get("default")
    objects = isinstance(default, list) and any(isinstance(one, dict) for one in default)
    if default is not None and (objects or len(choices) > 1):
        said = json.dumps(schema.pop("default"))
        schema["description"] = f"{schema.get('description', '')} Default: {said}.".strip()


def _with_name(schema: Schema, named: dict[str, Schema]) -> Schema:
    """Return a reference to a union in place of the union, which is added to `named`."""
    members = [one.get("$ref", "").removeprefix(REFERENCE) for one in schema.get("oneOf", ())]
    name = UNIONS.get(members[0]) if members else None
    union: Schema = {key: schema[key] for key in ("oneOf", "discriminator") if key in schema}
    if name is None or named.setdefault(name, union) != union:
        return schema
    return {"$ref": REFERENCE + name, **{key: schema[key] for key in KEPT[1:] if key in schema}}
