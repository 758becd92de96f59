"""Databases of the test session's PostgreSQL server."""

import psycopg


def sql(url: str, statement: str) -> None:
    """Run one statement outside any transaction."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True, connect_timeout=60) as connection:
        connection.execute(statement.encode())


def database_of(url: str, name: str) -> str:
    """Return the URL of the same server's database of that name."""
    return f"{url.rpartition('/')[0]}/{name}"
