"""The base of every settings class: closed, frozen, and strict about numbers."""

from functools import cache
from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, ValidationError, model_validator
from pydantic_core import InitErrorDetails


class Closed(BaseModel):
    """Settings that refuse unknown fields, infinities and NaN, and that no one changes once made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, given: Any) -> Any:
        """`steps: "5"` and `steps: true` are mistakes, though Python would make numbers of them."""
        numbers = _numbers(cls)
        wrong = [
            InitErrorDetails(type="int_type" if numbers[name] is int else "float_type", loc=(name,), input=value)
            for name, value in (given.items() if isinstance(given, dict) else ())
            if name in numbers and isinstance(value, bool | str)
        ]
        if wrong:
            raise ValidationError.from_exception_data(cls.__name__, wrong)
        return given


@cache
def _numbers(model: type[BaseModel]) -> dict[str, type]:
    """The fields that hold a number, and of which type it is."""
    found = ((name, _number(field.annotation)) for name, field in model.model_fields.items())
    return {name: number for name, number in found if number}


def _number(annotation: Any) -> type | None:
    """int or float, where that (or nothing) is what a field holds."""
    (kind, *others) = {*(get_args(annotation) or (annotation,))} - {NoneType} or {NoneType}
    return kind if not others and kind in (int, float) else None


def one_of(*fields: str) -> Discriminator:
    """Choose a union's member by which marking field is present, so that an error speaks of that member only.

    Each member is tagged with its marking field; where none is present, the first member reports what is missing.
    """

    def choose(value: Any) -> str:
        for field in fields:
            if field in value if isinstance(value, dict) else hasattr(value, field):
                return field
        return fields[0]

    return Discriminator(choose)
