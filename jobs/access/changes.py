"""Changes of objects, for the audit log."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

SECRETS = frozenset({"key", "secret", "token"})  # fields that the audit log never contains
Fields = BaseModel | Mapping[str, Any] | None


@dataclass(frozen=True)
class ObjectChange:
    """The id of an object, and its fields before and after a change, only those that differ. None: it did not exist."""

    object: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


def between(object: object, before: Fields, after: Fields) -> ObjectChange:
    """Return the change of an object from one record to another."""
    old, new = _fields(before), _fields(after)
    if old is not None and new is not None:
        differ = {name for name in old | new if old.get(name) != new.get(name)}
        old, new = ({name: value for name, value in each.items() if name in differ} for each in (old, new))
    return ObjectChange(str(object), old, new)


def _fields(record: Fields) -> dict[str, Any] | None:
    if record is None:
        return None
    values = record.model_dump(mode="json") if isinstance(record, BaseModel) else record
    return {name: value for name, value in values.items() if name not in SECRETS}
