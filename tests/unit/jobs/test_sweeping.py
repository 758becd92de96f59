"""Conditions under which a sweeping process may take jobs from silent workers."""

from collections.abc import Callable, Iterator

import pytest

from jobs.lifecycle import Recovery, sweeping
from jobs.settings import get_settings


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Moves the clock on; leases last 30 s, and a sweep begins every 5 s."""
    now = [1000.0]
    monkeypatch.setattr(sweeping, "_clock", lambda: now[0])
    monkeypatch.setenv("CALIBRL_LEASE_SECONDS", "30")
    monkeypatch.setenv("CALIBRL_SWEEP_SECONDS", "5")
    get_settings.cache_clear()

    def move(seconds: float) -> None:
        now[0] += seconds

    yield move
    get_settings.cache_clear()


def test_a_process_that_sweeps_in_time_recovers_at_once(clock: Callable[[float], None]) -> None:
    recovery = Recovery()
    assert recovery.allowed()
    clock(20)  # one sweep's interval and half a lease
    assert recovery.allowed()


def test_a_process_that_did_not_run_gives_workers_one_lease(clock: Callable[[float], None]) -> None:
    recovery = Recovery()
    recovery.allowed()
    clock(20.1)
    assert not recovery.allowed()
    for _ in range(5):
        clock(5)
        assert not recovery.allowed()
    clock(5)
    assert recovery.allowed()


def test_a_process_that_was_cut_off_gives_workers_one_lease(clock: Callable[[float], None]) -> None:
    recovery = Recovery()
    recovery.delay()
    clock(15)
    assert not recovery.allowed()
    clock(15)
    assert recovery.allowed()
