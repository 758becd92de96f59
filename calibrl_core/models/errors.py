"""What can be wrong with a model that a config names."""

from collections.abc import Collection

_NAMED = 3  # tensors that a message names


class ModelError(ValueError):
    """A model that can't be trained as asked; the message names the field at fault and the remedy."""


def listed(names: Collection[str]) -> str:
    """Return the first names in alphabetical order, and how many there are if there are more."""
    first = ", ".join(sorted(names)[:_NAMED])
    return f"{first} ({len(names)} in all)" if len(names) > _NAMED else first
