"""Examples of answers for the OpenAPI document, made from the schemas of the answers, so that they are always valid."""

from collections.abc import Mapping
from typing import Any

from api.examples import TRAIN

Schema = Mapping[str, Any]
DEEPEST = 8  # nested schemas; what is below is left out
ID = "3f1d2a9c-5b7e-4f60-a1b2-c3d4e5f60718"
TIME = "2026-11-30T10:00:00Z"
OF_FORMATS = {"uuid": ID, "date-time": TIME, "uri": "https://example.com/hooks", "binary": ""}
# Values of fields whose schema does not say enough.
OF_FIELDS: dict[str, Any] = {
    "actor": "ada",
    "arm": "calibrl",
    "baseline": "grpo",
    "created_by": "ada",
    "hub": "hiyouga/geometry3k",
    "key": "calibrl_...",
    "message": "attempt 1",
    "model": "tiny-vlm",
    "name": "digits-calibrl",
    "next": 65536,
    "path": "/v1/jobs",
    "prefix": "calibrl_3f1d2a",
    "project": "default",
    "rule": "entropy_collapse",
    "secret": "whsec_...",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "slug": "default",
    "spec": TRAIN,
    "split": "test",
    "text": "step 1  reward/mean 0.250\n",
    "url": "https://example.com/hooks",
    "user": "ada",
    "version": "1.0.0",
    "worker": "gpu-1",
}


def example_of(schema: Schema, definitions: Mapping[str, Schema], field: str = "", depth: int = 0) -> Any:
    """Return a value that the schema permits. `definitions`: the schemas that it names. `field`: the field that has
    it."""
    if "$ref" in schema:
        schema = {
            **definitions[schema["$ref"].rpartition("/")[2]],
            **{key: schema[key] for key in schema if key != "$ref"},
        }
    if schema.get("examples"):
        return schema["examples"][0]
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        first = next((one for one in choices if one.get("type") != "null"), choices[0])
        return None if depth > DEEPEST and len(choices) > 1 else example_of(first, definitions, field, depth + 1)
    if "allOf" in schema:
        return example_of(schema["allOf"][0], definitions, field, depth + 1)
    kind = schema.get("type")
    if kind == "object":
        return OF_FIELDS["spec"] if field == "spec" else _object(schema, definitions, depth)
    if kind == "array":
        return _list(schema, definitions, field, depth)
    return _plain(schema, field)


def _object(schema: Schema, definitions: Mapping[str, Schema], depth: int) -> dict[str, Any]:
    required = schema.get("required", ())
    fields = {
        name: example_of(one, definitions, name, depth + 1)
        for name, one in schema.get("properties", {}).items()
        if depth <= DEEPEST or name in required
    }
    others = schema.get("additionalProperties")
    if not fields and isinstance(others, Mapping) and others:
        key = example_of(schema["propertyNames"], definitions, "team") if "propertyNames" in schema else "team"
        return {key: example_of(others, definitions, "", depth + 1)}
    return fields


def _list(schema: Schema, definitions: Mapping[str, Schema], field: str, depth: int) -> list[Any]:
    if "prefixItems" in schema:
        return [example_of(one, definitions, field, depth + 1) for one in schema["prefixItems"]]
    if "items" not in schema or depth > DEEPEST:
        return []
    return [example_of(schema["items"], definitions, field, depth + 1)] * max(1, schema.get("minItems", 1))


def _plain(schema: Schema, field: str) -> Any:
    kind = schema.get("type")
    if kind == "null":
        return None
    if kind == "boolean":
        return bool(schema.get("default", True))
    if kind in ("integer", "number"):
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        return max(1, least) if kind == "integer" else max(0.5, least)
    if kind == "string":
        known = OF_FIELDS.get(field)
        return OF_FORMATS.get(schema.get("format", ""), known if isinstance(known, str) else field or "value")
    return OF_FIELDS.get(field, {})
