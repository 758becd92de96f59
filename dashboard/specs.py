"""What a job's spec says that the defaults do not."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError

from jobs.schemas import EvaluateSpec, TrainSpec

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


def chosen(spec: dict[str, Any]) -> list[Chosen]:
    """Where a spec, which has every default filled in, differs from the defaults of its kind and algorithm."""
    defaults = _defaults(spec)
    different = [Chosen(field, value, defaults.get(field)) for field, value in flat(spec).items()]
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
