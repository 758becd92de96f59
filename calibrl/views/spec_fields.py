"""Output of `calibrl schema PATH`: a field of a training spec, and the fields in it."""

import json
from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from calibrl.schemas.field_names import Schema, members
from calibrl.schemas.spec_paths import fields_at, spec_schema

BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "maxLength": "at most {} characters",
    "maxItems": "at most {} items",
}


def field_page(path: str) -> RenderableType:
    """Return a table of the field at a path, and a table per kind of mapping that it can hold.

    Raises:
        ValueError: there is no such field; the message names similar ones.
    """
    root = spec_schema()
    found = fields_at(path)
    parts: list[RenderableType] = [_table({path: field}, root) for field in found[:1]]
    inner = {str(one): one for field in found for one in _mappings(field, root)}
    for one in inner.values():
        parts += [Text(f"\n{one.get('title', path)}", style="bold"), _table(one["properties"], root)]
    return Group(*parts)


def _mappings(field: Schema, root: Schema) -> list[Schema]:
    """Return the mappings with named fields that a field, or an item of its list, can be."""
    options = [*members(field, root)]
    options += [item for one in options if "items" in one for item in members(one["items"], root)]
    return [one for one in options if one.get("properties")]


def _table(fields: Mapping[str, Schema], root: Schema) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("Field", "Type", "Default", "Meaning and limits"):
        table.add_column(head, header_style="dim", overflow="fold")
    for name, field in fields.items():
        default = json.dumps(field["default"]) if "default" in field else ""
        bounds = dict.fromkeys(
            text.format(one[key]) for one in members(field, root) for key, text in BOUNDS.items() if key in one
        )
        limits = f"{', '.join(bounds).capitalize()}." if bounds else ""
        meaning = " ".join(filter(None, (field.get("description", ""), limits)))
        table.add_row(*map(Text, (name, _type(field, root), default, meaning)))
    return table


def _type(field: Schema, root: Schema) -> str:
    return " or ".join(dict.fromkeys(_kind(one, root) for one in members(field, root)))


def _kind(schema: Schema, root: Schema) -> str:
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " or ".join(map(json.dumps, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}), root)}"
    if schema.get("type") == "object":
        return str(schema.get("title", "mapping"))
    return {"null": "none"}.get(kind := str(schema.get("type", "any")), kind)
