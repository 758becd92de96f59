"""The Python client, the command line, and the local stack."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calibrl.client import CalibrlError, Client

__all__ = ["CalibrlError", "Client"]


def __getattr__(name: str) -> object:
    """Import the client at its first use: every process imports `calibrl.schemas`, and only some need HTTP."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from calibrl import client

    return getattr(client, name)
