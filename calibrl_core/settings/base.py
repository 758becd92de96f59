"""Base of all settings classes: closed, frozen, and strict about numbers."""

from functools import cache
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, ValidationError, model_validator
from pydantic_core import InitErrorDetails


class StrictSettings(BaseModel):
    """Immutable settings that refuse unknown fields, infinities and NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, values: Any) -> Any:
        """Refuse `steps: "5"` and `steps: true`, which pydantic would convert to numbers."""
        numbers = _number_fields(cls)
        wrong = [
            InitErrorDetails(type="int_type" if numbers[name] is int else "float_type", loc=(name,), input=value)
            for name, value in (values.items() if isinstance(values, dict) else ())
            if name in numbers and isinstance(value, bool | str)
        ]
        if wrong:
            raise ValidationError.from_exception_data(cls.__name__, wrong)
        return values


@cache
def _number_fields(model: type[BaseModel]) -> dict[str, type]:
    """Return the numeric fields of a model, by name, with their type."""
    types = ((name, _number_type(field.annotation)) for name, field in model.model_fields.items())
    return {name: number for name, number in types if number}


def _number_type(annotation: Any) -> type | None:
    """Return int or float if the field holds only that type (or None), else None."""
    (kind, *others) = {*(get_args(annotation) or (annotation,))} - {NoneType} or {NoneType}
    return kind if not others and kind in (int, float) else None


def one_of(*fields: str, several: str | None = None) -> Discriminator:
    """Choose the member of a union by the marking field that is present, so that an error names only that member.

    Each member is tagged with its marking field. If no marking field is present, the first member reports what is
    missing. `several`: tag of the member that is a list.
    """

    def choose(value: Any) -> str:
        if several is not None and isinstance(value, list | tuple):
            return several
        for field in fields:
            if field in value if isinstance(value, dict) else hasattr(value, field):
                return field
        return fields[0]

    return Discriminator(choose)
