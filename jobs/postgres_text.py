"""Text that PostgreSQL can store."""

from typing import Any


def storable(value: Any) -> Any:
    """Return the value with the characters replaced that PostgreSQL rejects in text: NUL and halves of surrogate
    pairs."""
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value
