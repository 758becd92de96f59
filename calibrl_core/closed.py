"""The base of every settings class: closed, frozen, and strict about numbers that are not numbers."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Discriminator


class Closed(BaseModel):
    """Settings that refuse unknown fields, infinities and NaN, and that no one changes once made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


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
