"""Names of the fields that a JSON Schema has at a place, and the names that resemble a wrong one."""

from collections.abc import Collection, Iterator, Sequence
from difflib import get_close_matches
from typing import Any

Schema = dict[str, Any]
SHOWN_NAMES = 3  # similar field names in a message
SIMILARITY = 0.65  # lowest similarity of these names, 0 to 1
# Names that other trainers have for fields of a spec.
SYNONYMS = {
    "learning_rate": "lr",
    "batch_size": "prompts_per_step",
    "train_batch_size": "prompts_per_step",
    "per_device_train_batch_size": "prompts_per_step",
    "max_steps": "steps",
    "num_train_epochs": "epochs",
    "num_generations": "group_size",
    "max_new_tokens": "max_completion_tokens",
    "max_tokens": "max_completion_tokens",
    "max_completion_length": "max_completion_tokens",
    "max_prompt_length": "max_prompt_tokens",
    "r": "rank",
    "lora_r": "rank",
    "lora_alpha": "alpha",
    "beta": "kl_coef",
    "reward": "rewards",
    "dataset": "data",
    "train_data": "data",
}


def members(schema: Schema, root: Schema) -> Iterator[Schema]:
    """Yield the members of a union, and of the unions in it, without references. `root` has the definitions."""
    if "$ref" in schema:
        yield from members(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    elif unions := [schema[key] for key in ("anyOf", "oneOf", "allOf") if key in schema]:
        yield from (member for union in unions for option in union for member in members(option, root))
    else:
        yield schema


def fields(schema: Schema, key: str) -> Iterator[Schema]:
    """Yield the schema of a field of a mapping or of an item of a list, if there is one."""
    if key in schema.get("properties", {}):
        yield schema["properties"][key]
    elif schema.get("type") == "object" and key and "properties" not in schema:  # a mapping with free keys, as labels
        yield {}
    elif schema.get("type") == "array" and key.isdecimal():
        yield schema.get("items", {})


def similar_names(key: str, names: Collection[str]) -> list[str]:
    """Return the names that may be meant by `key`, the most similar first."""
    synonym = SYNONYMS.get(key, "")
    return [synonym] if synonym in names else get_close_matches(key, names, SHOWN_NAMES, SIMILARITY)


def suggestions(root: Schema, body: Any, location: Sequence[int | str]) -> list[str]:
    """Return the fields that may be meant by the unknown field at `location` of a body: fields of the same place, else
    a field with such a name one level deeper.
    """
    *places, key = map(str, location)
    schemas, value = _fitting(root, root, body), body
    for place in places:
        value = _inner(value, place)
        schemas = [fit for schema in schemas for field in fields(schema, place) for fit in _fitting(field, root, value)]
    found = {name: field for schema in schemas for name, field in schema.get("properties", {}).items() if name != key}
    if similar := similar_names(key, found):
        return similar
    wanted = {key, SYNONYMS.get(key)}
    return [
        f"{name}.{inner}"
        for name, field in found.items()
        for inner in dict.fromkeys(each for one in members(field, root) for each in one.get("properties", {}))
        if inner in wanted
    ][:SHOWN_NAMES]


def _fitting(schema: Schema, root: Schema, value: Any) -> list[Schema]:
    """Return the members of a union that a value can be meant for: by their constants, and by their required fields if
    some member has them.
    """
    options = [*members(schema, root)]
    if not isinstance(value, dict):
        return options
    options = [option for option in options if all(value.get(k, c) == c for k, c in _constants(option).items())]
    complete = [option for option in options if set(option.get("required", ())) <= set(value)]
    return complete or options


def _constants(schema: Schema) -> dict[str, Any]:
    return {name: field["const"] for name, field in schema.get("properties", {}).items() if "const" in field}


def _inner(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return value.get(key)
    return value[int(key)] if isinstance(value, list) and key.isdecimal() and int(key) < len(value) else None
