"""The front door: the Python client, the command line, and the whole service on one machine."""

from calibrl.client import CalibrlError, Client

__all__ = ["CalibrlError", "Client"]
