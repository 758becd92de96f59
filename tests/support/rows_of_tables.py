"""Rows for every table of a database, made from what the database itself says of its tables."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

COUNT = 20  # rows of each table: enough for every word that a check allows
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = {"kind": "train", "resources": {"gpus": 1}}
Row = dict[str, Any]


def fill(connection: sa.Connection) -> list[sa.Table]:
    """Put rows into every table, and say which there are: each column has a value, and each column of certain words
    has all of them."""
    metadata = sa.MetaData()
    metadata.reflect(connection, only=lambda name, _: name != "alembic_version")
    keys: dict[str, list[Row]] = {}
    checks = sa.inspect(connection).get_multi_check_constraints()
    for table in metadata.sorted_tables:
        words = {column.name: _words(column, checks[None, table.name]) for column in table.columns}
        rows = [_row(table, number, words, keys) for number in range(COUNT)]
        connection.execute(table.insert(), rows)
        keys[table.name] = [dict(row) for row in connection.execute(sa.select(table)).mappings()]
    return metadata.sorted_tables


def contents(connection: sa.Connection, tables: Iterable[sa.Table]) -> dict[str, dict[tuple[Any, ...], Row]]:
    """Every row of these tables as they are now, by table and primary key."""
    found = {}
    for table in tables:
        rows = connection.execute(sa.select(sa.text("*")).select_from(table)).mappings()
        found[table.name] = {tuple(row[key.name] for key in table.primary_key): dict(row) for row in rows}
    return found


def holds(now: Any, before: Any) -> bool:
    """Return True if a value is unchanged; an object can have additional fields."""
    if isinstance(now, Mapping) and isinstance(before, Mapping):
        return all(key in now and holds(now[key], value) for key, value in before.items())
    return bool(now == before)


def _words(column: sa.Column[Any], checks: list[Any]) -> list[str]:
    """The words that a check allows a column; none: no check speaks of it."""
    of_column = (check["sqltext"] for check in checks if re.match(rf'\(*"?{column.name}\b', check["sqltext"]))
    return [word for text in of_column for word in re.findall(r"'(\w+)'", text)]


def _row(table: sa.Table, number: int, words: Mapping[str, list[str]], keys: Mapping[str, list[Row]]) -> Row:
    row: Row = {}
    for place, column in enumerate(table.columns):
        made_there = column.identity is not None or "nextval" in str(getattr(column.server_default, "arg", ""))
        if made_there or column.computed is not None:
            continue
        if reference := next(iter(column.foreign_keys), None):
            parent = reference.column
            if parent.table is table:
                continue  # a row of the same table is not there yet
            # Two references to one table lead to different rows.
            row[column.name] = keys[parent.table.name][(number + place) % COUNT][parent.name]
        elif allowed := words[column.name]:
            row[column.name] = allowed[number % len(allowed)]
        else:
            row[column.name] = _value(column, number)
    return row


def _value(column: sa.Column[Any], number: int) -> Any:
    match column.type:
        case postgresql.JSONB():
            return SPEC if column.name == "spec" else {"a": number + 0.5}
        case postgresql.ARRAY(item_type=sa.Text()):
            return [f"item {number}"]
        case postgresql.ARRAY(item_type=sa.Boolean()):
            return [number % 2 == 0]
        case postgresql.ARRAY():
            return [number]
        case sa.Uuid():
            return UUID(int=number + 1)
        case sa.Boolean():
            return number % 2 == 0
        case sa.LargeBinary():
            return number.to_bytes(32)
        case sa.DateTime():
            return LONG_AGO + timedelta(minutes=number)
        case sa.Double() | sa.Float():
            return number / 2
        case sa.Integer():
            return number
        case _:
            return f"{column.name} {number}"
