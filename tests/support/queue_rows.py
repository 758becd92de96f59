"""Invariants of the queue's tables, true after any sequence of actions."""

from collections import Counter
from contextlib import AbstractContextManager
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row

from tests.support.queue_model import FINAL, LEASED, TABLE

JOBS = """
    SELECT id, status, worker, machines, gpus, attempt, lease_token, lease_expires_at, finished_at, preempted FROM jobs
"""


def looking_at(url: str) -> AbstractContextManager[psycopg.Connection[Any]]:
    """A connection for looking at the tables: each statement sees what is committed."""
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True, row_factory=namedtuple_row)


def machines_of(connection: psycopg.Connection[Any], found: dict[UUID, Any]) -> dict[UUID, list[str]]:
    """Return the machines of each of these jobs, the main machine first; check that they are of its present lease."""
    machines: dict[UUID, list[str]] = {id: [] for id in found}
    for part in connection.execute("SELECT * FROM job_machines ORDER BY job_id, rank").fetchall():
        assert (part.rank, part.lease_token) == (len(machines[part.job_id]), found[part.job_id].lease_token)
        machines[part.job_id].append(part.worker)
    return machines


def check_rows(connection: psycopg.Connection[Any]) -> dict[UUID, Any]:
    """Check the invariants of the tables, true after any sequence of actions; return the jobs."""

    def rows(query: LiteralString) -> list[Any]:
        return connection.execute(query).fetchall()

    found = {row.id: row for row in rows(JOBS)}
    held = {id: row for id, row in found.items() if row.status in LEASED}
    cpu_slots = {row.name: row.cpu_slots for row in rows("SELECT name, cpu_slots FROM workers")}
    assert len({row.lease_token for row in held.values()}) == len(held)
    for id, row in found.items():
        leased = id in held
        assert {row.lease_token is not None, row.lease_expires_at is not None, row.worker is not None} == {leased}
        assert (row.finished_at is not None) == (row.status in FINAL)
        assert leased or not row.preempted

    parts = machines_of(connection, found)
    cards = rows("SELECT worker, index, job_id FROM gpus WHERE job_id IS NOT NULL")
    for id, row in found.items():
        assert len(set(parts[id])) == len(parts[id]) == (row.machines if id in held else 0)
        assert parts[id][:1] == ([row.worker] if id in held else [])
        assert Counter(card.worker for card in cards if card.job_id == id) == Counter(parts[id] * row.gpus)
    on_cpu = Counter(worker for id, row in held.items() if not row.gpus for worker in parts[id])
    assert all(count <= cpu_slots[name] for name, count in on_cpu.items())

    attempts = rows("SELECT job_id, number, finished_at, status FROM attempts ORDER BY job_id, number")
    for id, row in found.items():
        own = [one for one in attempts if one.job_id == id]
        assert [one.number for one in own] == [*range(1, row.attempt + 1)]
        assert [one.number for one in own if one.finished_at is None] == ([row.attempt] if id in held else [])

    statuses: dict[UUID, list[str]] = {id: [] for id in found}
    for event in rows("SELECT job_id, status FROM events WHERE status IS NOT NULL ORDER BY id"):
        statuses[event.job_id].append(event.status)
    for id, row in found.items():
        assert statuses[id][-1] == row.status
        assert all(
            after in TABLE[before].split() for before, after in zip([None, *statuses[id]], statuses[id], strict=False)
        )

    for row in rows("SELECT job_id, array_agg(depends_on_id) AS needs FROM job_dependencies GROUP BY job_id"):
        status, needed = found[row.job_id].status, {found[id].status for id in row.needs}
        if status in ("queued", "succeeded", *LEASED):
            assert needed == {"succeeded"}
        elif status in ("waiting", "paused"):
            assert not needed & {"failed", "cancelled"}
            assert status == "paused" or needed != {"succeeded"}
    return found
