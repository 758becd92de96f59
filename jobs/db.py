"""Connection to PostgreSQL: one engine per process, and the session scope for all transactions."""

import json
import os
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import psycopg
import structlog
from psycopg.conninfo import make_conninfo
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from calibrl_core.report import jsonable
from jobs import queue
from jobs.errors import FieldError, Invalid
from jobs.postgres_text import storable
from jobs.repository import feed
from jobs.settings import get_settings

IDLE_SECONDS = 30  # between two statements of a transaction, after which the server ends it
TRANSACTION_SECONDS = 2 * IDLE_SECONDS  # of a whole transaction, from PostgreSQL 17 on
# Nothing waits for the database without a limit: not for an address, a statement, a lock, or a forgotten transaction.
# The server's keepalives end the transaction of a client that was cut off. A stopped client still answers keepalives:
# the idle limit ends its transaction. That limit does not follow the lease: a process that only waits for a CPU was
# seen to pause for more than 3 s, and must not lose its transaction.
_OPTIONS = (
    "-c timezone=UTC -c statement_timeout=30s -c lock_timeout=10s"
    f" -c idle_in_transaction_session_timeout={IDLE_SECONDS}s"
    " -c tcp_keepalives_idle=5 -c tcp_keepalives_interval=3 -c tcp_keepalives_count=3"
)
_CONNECT: dict[str, Any] = {"connect_timeout": 15, "options": _OPTIONS, "tcp_user_timeout": 15_000}
SEARCH_SECONDS = 2.0
CONNECTIONS = 30  # maximum per process; most are divided among parts with their own limits
_KEPT_OPEN = 5
_HAS_TRANSACTION_TIMEOUT = 170_000  # first version of PostgreSQL with transaction_timeout
_WAKES, _AFTER = "wakes", "after commit"
_LISTENER = "calibrl live"  # name of the connection in pg_stat_activity
_QUIET_SECONDS = 15.0  # interval of checks of a silent connection
_engines: dict[str, Engine] = {}
_lock = Lock()
log = structlog.get_logger()


def _to_json(value: Any) -> str:
    return json.dumps(storable(jsonable(value)), allow_nan=False, ensure_ascii=False)


def _limit_transactions(connection: psycopg.Connection[Any], _: Any) -> None:
    """Limit each transaction: a client that stops in the middle of a batch, which the server counts as active, must
    not keep its locks."""
    if connection.info.server_version >= _HAS_TRANSACTION_TIMEOUT:
        connection.execute(f"SET transaction_timeout = '{TRANSACTION_SECONDS}s'".encode())
        connection.commit()


def _make_engine(url: str) -> Engine:
    engine = create_engine(
        url,
        pool_size=_KEPT_OPEN,
        max_overflow=CONNECTIONS - _KEPT_OPEN,
        pool_timeout=30,
        pool_pre_ping=True,
        hide_parameters=True,
        json_serializer=_to_json,
        connect_args=_CONNECT,
    )
    event.listen(engine, "connect", _limit_transactions)
    return engine


def get_engine() -> Engine:
    """Return the engine of this process, created at first use.

    Raises:
        SettingsError: DATABASE_URL is not set.
    """
    url = get_settings().need("database_url")
    with _lock:
        if url not in _engines:
            _engines[url] = _make_engine(url)
        return _engines[url]


def dispose() -> None:
    """Close unused connections and forget the engine."""
    with _lock:
        while _engines:
            _engines.popitem()[1].dispose()


def _forget_in_child() -> None:
    # A forked child must neither use nor close the connections of its parent.
    for engine in _engines.values():
        engine.dispose(close=False)


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
os.register_at_fork(after_in_child=_forget_in_child)


def is_disk_full(error: Exception) -> bool:
    """Return True if the database could not write because its disk is full. It still answers reads."""
    return isinstance(getattr(error, "orig", None), psycopg.errors.DiskFull)


@contextmanager
def search_limit(session: Session, field: str) -> Iterator[None]:
    """Limit the statements of a search to SEARCH_SECONDS: a search without an index reads all rows.

    Raises:
        Invalid: a statement took longer. `field`: what was searched for.
    """
    session.execute(text(f"SET LOCAL statement_timeout = {SEARCH_SECONDS * 1000:.0f}"))
    try:
        yield
    except OperationalError as error:
        if not isinstance(error.orig, psycopg.errors.QueryCanceled):
            raise
        took = f"the search took longer than {SEARCH_SECONDS:g} s: also filter by project, status or time"
        raise Invalid("The search was ended.", (FieldError(field, took),)) from error


def wake_after_commit(session: Session, worker: str) -> None:
    """Make `session_scope` wake a worker after the commit of the session."""
    session.info.setdefault(_WAKES, Counter())[worker] += 1


def after_commit(session: Session, key: str, action: Callable[[], object]) -> None:
    """Make `session_scope` run an action after the commit of the session, once per key. The commit stays valid if the
    action cannot reach the database: use it for work that a sweep repeats."""
    session.info.setdefault(_AFTER, {}).setdefault(key, action)


@contextmanager
def session_scope() -> Iterator[Session]:
    """Open a session that commits at the end, with its changes in the feed, or rolls back on an exception. After the
    commit send its wake-ups, and run its `after_commit` actions without its locks."""
    with Session(get_engine(), expire_on_commit=False) as session, session.begin():
        yield session
        feed.write(session)
    queue.wake(session.info.get(_WAKES, Counter()))
    for key, action in session.info.get(_AFTER, {}).items():
        try:
            action()
        except SQLAlchemyError as error:
            log.warning("action after a commit failed", action=key, error=str(error))


async def notifications() -> AsyncGenerator[str | None, None]:
    """Yield the ids of changed jobs, over a connection that only listens. The first item is None: from then on none is
    missed.

    Raises:
        psycopg.Error: the connection failed.
    """
    conninfo = make_conninfo(get_settings().need("database_url").replace("+psycopg", "", 1))
    options = _CONNECT | {"application_name": _LISTENER, "autocommit": True}
    async with await psycopg.AsyncConnection.connect(conninfo, **options) as connection:
        await connection.execute(f"LISTEN {feed.CHANNEL}".encode())
        yield None
        while True:
            async for message in connection.notifies(timeout=_QUIET_SECONDS):
                yield message.payload
            await connection.execute("SELECT 1")
