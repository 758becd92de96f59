"""What tells a database that is away from a mistake of ours."""

from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

# InternalError: the server has ended a transaction that waited too long, as that of a process that was stopped.
AWAY = (OperationalError, InterfaceError, InternalError, PoolTimeout)
