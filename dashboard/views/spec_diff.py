"""Differences between a job's spec and the defaults."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError

from calibrl.schemas import AnySpec, AuditSpec, BisectSpec, EvaluateSpec, TrainSpec, WhatIfSpec

KINDS: dict[str, type[AnySpec]] = {
    "train": TrainSpec,
    "evaluate": EvaluateSpec,
    "audit": AuditSpec,
    "what_if": WhatIfSpec,
    "bisect": BisectSpec,
}
NAMING = ("kind", "name", "project", "labels")  # shown elsewhere on the page
UNSET = ("none", "False")  # values that mean "not set" in a section without a default, such as `model`
LENGTH = ("steps", "epochs")  # a spec has one of these; neither has a default


class ChangedField(NamedTuple):
    """A field with its value and its default; None if it has no default."""

    field: str
    value: str
    default: str | None


def _leaves(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{at}.{name}" if at else name)
    else:
        yield at, text_of(value)


def text_of(value: Any) -> str:
    """Return a value of a spec as text; small and large numbers have one notation."""
    if isinstance(value, list):
        return ", ".join(map(text_of, value)) or "none"
    if isinstance(value, dict):
        return " ".join(f"{name}={text_of(item)}" for name, item in value.items()) or "none"
    if isinstance(value, float) and value and not 1e-3 <= abs(value) < 1e6:
        mantissa, _, exponent = f"{value:.6e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return "none" if value is None else str(value)


def flat(spec: dict[str, Any]) -> dict[str, str]:
    """Return the values of a spec by dotted name."""
    return dict(_leaves(spec))


def ordered(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a spec in the field order of its model. The database keeps no order.

    A spec that this version no longer accepts is returned unchanged.
    """
    try:
        valid = KINDS[spec["kind"]].model_validate(spec).model_dump(mode="json")
    except (ValidationError, KeyError):
        return spec
    return dict(_like(spec, valid))


def _like(value: Any, template: Any) -> Any:
    """The value with its keys in the order of `template`; other keys come last."""
    if isinstance(value, dict) and isinstance(template, dict):
        names = [*(name for name in template if name in value), *(name for name in value if name not in template)]
        return {name: _like(value[name], template.get(name)) for name in names}
    if isinstance(value, list) and isinstance(template, list) and len(value) == len(template):
        return [_like(item, other) for item, other in zip(value, template, strict=True)]
    return value


def changed_fields(spec: dict[str, Any]) -> list[ChangedField]:
    """Return the fields of a complete spec that differ from the defaults of its kind and algorithm."""
    defaults, unchanged = _defaults(spec), _unchanged(spec)
    different = [ChangedField(field, value, defaults.get(field)) for field, value in flat(ordered(spec)).items()]
    return [
        row
        for row in different
        if row.field.partition(".")[0] not in NAMING
        and row.value != row.default
        and row.field not in unchanged
        and not (row.default is None and row.value in UNSET)
    ]


def _unchanged(spec: dict[str, Any]) -> set[str]:
    """Return the fields that have the default of their section, such as `model.attention`."""
    try:
        valid = KINDS[spec["kind"]].model_validate(spec)
    except ValidationError:
        return set()
    return {*flat(valid.model_dump(mode="json"))} - {*flat(valid.model_dump(mode="json", exclude_defaults=True))}


def _defaults(spec: dict[str, Any]) -> dict[str, str]:
    """The defaults of specs like this one; none if this version no longer accepts the spec."""
    fields = KINDS[spec["kind"]].model_fields
    required = [name for name, field in fields.items() if field.is_required() or name in LENGTH]
    minimal = {name: spec[name] for name in required if name in spec}
    if "algorithm" in minimal:
        minimal["algorithm"] = {"type": spec["algorithm"].get("type")}
    try:
        filled = KINDS[spec["kind"]].model_validate(minimal).model_dump(mode="json")
    except ValidationError:
        return {}
    return flat({name: value for name, value in filled.items() if name not in required or name == "algorithm"})
