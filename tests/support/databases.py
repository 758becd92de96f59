"""Databases of the test session's PostgreSQL server."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.sql import SQL, Identifier

# Changes with each table, column, trigger and function.
_SCHEMA = """
SELECT (SELECT array_agg(ROW(a.attrelid, relname, attname, attnum, atttypid)::text ORDER BY attrelid, attnum)
          FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE relnamespace = 'public'::regnamespace),
       (SELECT count(*) FROM pg_trigger), (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_constraint)
"""
_TABLES = """
SELECT relname FROM pg_class
 WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
"""
_DISCONNECT = """
SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
_RESTART_SEQUENCES = "SELECT setval(seqrelid::regclass, seqstart, false) FROM pg_sequence"


def sql(url: str, statement: str) -> None:
    """Run one statement outside any transaction."""
    with _connect(url) as connection:
        connection.execute(statement.encode())


def database_of(url: str, name: str) -> str:
    """Return the URL of the same server's database of that name."""
    return f"{url.rpartition('/')[0]}/{name}"


class Databases:
    """Copies of a template. A copy is used again by the next test: to restore its rows takes a tenth of the CPU time of
    a new copy."""

    def __init__(self, server: str, template: str) -> None:
        self._server = server
        self._template = template
        with _connect(database_of(server, template)) as connection:
            tables = [name for (name,) in connection.execute(_TABLES)]
            parts = [SQL("SELECT {} WHERE EXISTS (SELECT FROM {})").format(name, Identifier(name)) for name in tables]
            self._tables_with_rows = SQL(" UNION ALL ").join(parts)
            self._schema = connection.execute(_SCHEMA).fetchall()
            self._rows = {
                name: connection.execute(SQL("SELECT json_agg(t)::text FROM {} t").format(Identifier(name))).fetchone()
                for (name,) in connection.execute(self._tables_with_rows).fetchall()
            }
        self._restored: list[str] = []

    @contextmanager
    def lend(self) -> Iterator[str]:
        """Yield the URL of a copy that no other test uses at the same time."""
        name = self._restored.pop() if self._restored else self._create()
        yield database_of(self._server, name)
        if self._restore(name):
            self._restored.append(name)
        else:
            sql(self._server, f"DROP DATABASE {name} WITH (FORCE)")

    def _create(self) -> str:
        name = f"test_{uuid4().hex}"
        # Copies of files take two thirds of the CPU time of copies by the write-ahead log, the default.
        sql(self._server, f"CREATE DATABASE {name} TEMPLATE {self._template} STRATEGY FILE_COPY")
        return name

    def _restore(self, name: str) -> bool:
        """End all connections and restore the rows. Return False if the schema is no longer that of the template."""
        with _connect(database_of(self._server, name)) as connection:
            connection.execute(_DISCONNECT)
            if connection.execute(_SCHEMA).fetchall() != self._schema:
                return False
            connection.execute("SET session_replication_role = replica")  # no foreign keys, no triggers
            tables = [Identifier(table) for (table,) in connection.execute(self._tables_with_rows).fetchall()]
            for table in tables:
                connection.execute(SQL("DELETE FROM {}").format(table))
            if tables:
                connection.execute(SQL("VACUUM {}").format(SQL(", ").join(tables)))
            connection.execute(_RESTART_SEQUENCES)
            for filled, rows in self._rows.items():
                statement = SQL("INSERT INTO {0} SELECT * FROM json_populate_recordset(NULL::{0}, %s)")
                connection.execute(statement.format(Identifier(filled)), rows)
            return True


def _connect(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True, connect_timeout=60)
