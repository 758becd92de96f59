"""Errors of a model that a config names."""

from collections.abc import Collection

_NAMED = 3  # names that a message lists


class ModelError(ValueError):
    """A model that cannot be trained as configured; the message names the field and the remedy."""


def first_names(names: Collection[str]) -> str:
    """Return the first names in alphabetical order, with the total number if there are more."""
    first = ", ".join(sorted(names)[:_NAMED])
    return f"{first} ({len(names)} in all)" if len(names) > _NAMED else first
