"""What a job's spec says that the defaults do not."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError

from calibrl.schemas import EvaluateSpec, TrainSpec

KINDS: dict[str, type[TrainSpec | EvaluateSpec]] = {"train": TrainSpec, "evaluate": EvaluateSpec}
NAMING = ("kind", "name", "project", "labels")  # what a job's page shows elsewhere
UNSAID = ("none", "False")  # in what has no default as a whole, such as `model`: nobody chose these


class Chosen(NamedTuple):
    """A field, what a job has there, and what it would have had; None where there is no default."""

    field: str
    value: str
    default: str | None


def _leaves(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{at}.{name}" if at else name)
    else:
        yield at, _said(value)


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_said, value)) or "none"
    if isinstance(value, dict):
        return " ".join(f"{name}={_said(item)}" for name, item in value.items()) or "none"
    return "none" if value is None else str(value)


def flat(spec: dict[str, Any]) -> dict[str, str]:
    """A spec's values by their dotted names."""
    return dict(_leaves(spec))


def ordered(spec: dict[str, Any]) -> dict[str, Any]:
    """A spec in the order of its model's fields, as people write it; the database keeps none. One that this version
    does not know any more stays as it is."""
    try:
        known = KINDS[spec["kind"]].model_validate(spec).model_dump(mode="json")
    except (ValidationError, KeyError):
        return spec
    return dict(_like(spec, known))


def _like(value: Any, known: Any) -> Any:
    """The value with its keys in the order of `known`, those that it does not have last."""
    if isinstance(value, dict) and isinstance(known, dict):
        names = [*(name for name in known if name in value), *(name for name in value if name not in known)]
        return {name: _like(value[name], known.get(name)) for name in names}
    if isinstance(value, list) and isinstance(known, list) and len(value) == len(known):
        return [_like(one, other) for one, other in zip(value, known, strict=True)]
    return value


def chosen(spec: dict[str, Any]) -> list[Chosen]:
    """Where a spec, which has every default filled in, differs from the defaults of its kind and algorithm."""
    defaults = _defaults(spec)
    different = [Chosen(field, value, defaults.get(field)) for field, value in flat(ordered(spec)).items()]
    return [
        row
        for row in different
        if row.field.partition(".")[0] not in NAMING
        and row.value != row.default
        and not (row.default is None and row.value in UNSAID)
    ]


def _defaults(spec: dict[str, Any]) -> dict[str, str]:
    """The defaults of specs like this one; none where this version knows no such specs any more."""
    required = [name for name, field in KINDS[spec["kind"]].model_fields.items() if field.is_required()]
    least = {name: spec[name] for name in required if name in spec}
    if "algorithm" in least:
        least["algorithm"] = {"type": spec["algorithm"].get("type")}
    try:
        filled = KINDS[spec["kind"]].model_validate(least).model_dump(mode="json")
    except ValidationError:
        return {}
    return flat({name: value for name, value in filled.items() if name not in required or name == "algorithm"})
