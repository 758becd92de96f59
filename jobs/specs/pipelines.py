"""Pipelines: specs of jobs that name each other get the ids of these jobs."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from jobs.errors import FieldError, Invalid

MARK = "@"  # begins the name of an earlier job of the pipeline
REFERENCES = ("from_job", "depends_on")


def with_ids(specs: Sequence[Mapping[str, Any]]) -> list[tuple[UUID, dict[str, Any]]]:
    """Return each spec with the id of its job. Names of earlier jobs, `@name`, are replaced by their ids.

    Raises:
        Invalid: a name has no earlier job, or two jobs have the same name.
    """
    ids, numbered, faults = dict[str, UUID](), list[tuple[UUID, dict[str, Any]]](), list[FieldError]()
    for place, spec in enumerate(specs):
        try:
            filled = _filled(spec, ids, f"jobs.{place}", faults)
        except RecursionError:
            raise Invalid("The pipeline was not accepted.", (FieldError(f"jobs.{place}", "Nested too deep"),)) from None
        id, name = uuid4(), spec.get("name")
        if isinstance(name, str):  # the check of the spec names other faults
            if name in ids:
                faults.append(FieldError(f"jobs.{place}.name", f"another job of the pipeline is named {name!r} too"))
            ids[name] = id
        numbered.append((id, filled))
    if faults:
        raise Invalid("The pipeline was not accepted.", tuple(faults))
    return numbered


def _filled(value: Any, ids: Mapping[str, UUID], place: str, faults: list[FieldError], key: str = "") -> Any:
    if key == "labels":
        return value
    if isinstance(value, Mapping):
        return {name: _filled(one, ids, f"{place}.{name}", faults, str(name)) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(one, ids, f"{place}.{number}", faults, key) for number, one in enumerate(value)]
    if key not in REFERENCES or not isinstance(value, str) or not value.startswith(MARK):
        return value
    if (id := ids.get(value.removeprefix(MARK))) is not None:
        return str(id)
    known = f"earlier jobs are {', '.join(MARK + name for name in ids)}" if ids else "there is no earlier job"
    faults.append(FieldError(place, f"{value!r} names no earlier job of the pipeline: {known}"))
    return value
