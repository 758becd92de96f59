"""Random operations on the queue, in a real database, beside a model of it."""

from collections.abc import Iterator
from typing import Any, cast

import hypothesis
import psycopg
import pytest
from hypothesis.stateful import run_state_machine_as_test

from jobs.lifecycle import sweeping
from jobs.settings import get_settings
from tests.support.queue_model import LEASE
from tests.support.queue_moves import Queue
from tests.support.queue_rows import looking_at
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def connection(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection[Any]]:
    """Yield a connection that reads the database. Leases do not expire by themselves: the test moves the time."""
    monkeypatch.setenv("CALIBRL_LEASE_SECONDS", str(LEASE))
    monkeypatch.setattr(sweeping, "MANY_AT_ONCE", 1_000)  # the model has no suspicion of the network
    get_settings.cache_clear()
    with looking_at(database) as opened:
        # A lease that ran out before the server was up does not count: let what has just run out be later than that.
        eventually(
            lambda: opened.execute("SELECT 1 WHERE now() > pg_postmaster_start_time() + interval '6 s'").fetchone()
        )
        yield opened
    get_settings.cache_clear()


def explore(connection: psycopg.Connection[Any], **settings: Any) -> None:
    checks = [*hypothesis.HealthCheck]
    chosen = hypothesis.settings(deadline=None, suppress_health_check=checks, print_blob=True, **settings)

    def make() -> Queue:
        return Queue(connection)

    run_state_machine_as_test(cast(type[Queue], make), settings=chosen)  # any callable that makes one will do


def test_the_queue_keeps_its_invariants_in_random_runs(connection: psycopg.Connection[Any]) -> None:
    explore(connection, max_examples=2, stateful_step_count=40, derandomize=True, database=None)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_queue_keeps_its_promises_in_many_runs(connection: psycopg.Connection[Any]) -> None:
    explore(connection, max_examples=30, stateful_step_count=60, derandomize=True, database=None)


@pytest.mark.fuzz
@pytest.mark.timeout(4 * 3600)
def test_the_queue_keeps_its_invariants_in_an_hour_of_runs(connection: psycopg.Connection[Any]) -> None:
    """`make fuzz-queue`: other examples each time, longer ones; those that failed are remembered in .hypothesis."""
    explore(connection, max_examples=1500, stateful_step_count=80)
