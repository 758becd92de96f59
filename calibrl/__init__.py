"""The Python client, the command line, and the local stack."""

from calibrl.client import CalibrlError, Client

__all__ = ["CalibrlError", "Client"]
