"""Health check of the database."""

import psycopg
from psycopg.conninfo import make_conninfo

from jobs.settings import get_settings

LIMIT_SECONDS = 2


def check() -> None:
    """Read a table over a new connection, within SECONDS: the pool may be busy or hold dead connections.

    Raises:
        psycopg.Error: the database cannot be used.
    """
    url = get_settings().need("database_url").replace("+psycopg", "", 1)
    options = f"-c statement_timeout={LIMIT_SECONDS}s -c lock_timeout={LIMIT_SECONDS}s"
    conninfo = make_conninfo(url, connect_timeout=LIMIT_SECONDS, tcp_user_timeout=LIMIT_SECONDS * 1000, options=options)
    with psycopg.connect(conninfo) as connection:
        connection.execute("SELECT slug FROM projects LIMIT 1")
