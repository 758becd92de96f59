"""JSON Schema of a job spec, with which editors complete and check YAML files."""

from typing import Any

from calibrl.schemas.specs import job_spec_adapter

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def job_spec_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a spec of any kind of job.

    The kind of a spec, and the `type` of an algorithm or reward, choose the schema by `if` and `then`. So an editor
    names the wrong field, and does not only say that the spec fits none of the kinds.
    """
    schema: dict[str, Any] = _by_condition(job_spec_adapter.json_schema())
    return {"$schema": DIALECT, "title": "CalibRL job spec", **schema}


def _by_condition(schema: Any) -> Any:
    """Replace each union with a discriminator by conditions."""
    if isinstance(schema, list):
        return [_by_condition(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {key: _by_condition(value) for key, value in schema.items()}
    if not isinstance(changed.get("discriminator"), dict) or "oneOf" not in changed:
        return changed
    discriminator, _ = changed.pop("discriminator"), changed.pop("oneOf")
    name, mapping = discriminator["propertyName"], discriminator["mapping"]
    conditions = [
        {"if": {"properties": {name: {"const": value}}, "required": [name]}, "then": {"$ref": ref}}
        for value, ref in mapping.items()
    ]
    return {
        **changed,
        "type": "object",
        "required": [name],
        "properties": {name: {"enum": list(mapping)}},
        "allOf": conditions,
    }
