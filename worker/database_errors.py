"""Exceptions that mean that the database is unreachable."""

from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

# InternalError: the server ended a transaction that was idle for too long, for example of a suspended process.
AWAY = (OperationalError, InterfaceError, InternalError, PoolTimeout)
