"""Heartbeats and the end of a claim, without a database and at times set by hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from jobs.lifecycle import Claim, Order
from jobs.settings import Settings
from worker import claim_lease, supervisor
from worker.claim_lease import ClaimLease
from worker.standby import Standby
from worker.supervisor import SETTLE_SECONDS, Supervisor
from worker.trainer_process import child_environment

CLAIM = Claim(uuid4(), 1, uuid4(), "train", {})
SETTINGS = Settings(lease_seconds=30)


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ends of the transactions of heartbeats."""
    ends: list[str] = []

    @contextmanager
    def scope() -> Iterator[None]:
        try:
            yield
        except BaseException:
            ends.append("rolled back")
            raise
        ends.append("committed")

    monkeypatch.setattr(claim_lease, "session_scope", scope)
    return ends


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(claim_lease, "_clock", clock.monotonic)
    monkeypatch.setattr(supervisor, "time", clock)
    return clock


def supervised() -> Supervisor:
    return Supervisor(CLAIM, SETTINGS, Standby(SETTINGS, child_environment(())))


def test_a_heartbeat_that_ends_after_its_run_changes_nothing(ends: list[str]) -> None:
    def renew(session: Session, claim: Claim) -> Order:
        lease._ended.set()
        return Order.CANCEL

    lease = ClaimLease(CLAIM, SETTINGS, renew)
    assert lease.beat()
    assert (ends, lease.order) == (["rolled back"], Order.CONTINUE)


def test_a_lost_lease_is_not_renewed(ends: list[str]) -> None:
    lease = ClaimLease(CLAIM, SETTINGS, lambda session, claim: Order.ABANDON)
    assert [lease.beat() for _ in range(3)] == [True] * 3
    assert (ends, lease.order) == (["committed"], Order.ABANDON)


@pytest.mark.usefixtures("ends")
def test_the_time_alone_begins_with_the_first_failure(clock: Clock) -> None:
    """A machine that was suspended for hours, and has no network at first, goes on."""
    away = False

    def renew(session: Session, claim: Claim) -> Order:
        if away:
            raise OperationalError("SELECT 1", {}, Exception("away"))
        return Order.CONTINUE

    lease, orders = ClaimLease(CLAIM, SETTINGS, renew), list[Order]()
    for away, seconds in ((False, 0), (True, 36_000), (True, 1800), (False, 0), (True, 1800), (True, 1801)):
        clock.now += seconds
        assert lease.beat() is not away
        orders.append(lease.order)
    assert orders == [Order.CONTINUE] * 5 + [Order.STOP]


def test_an_end_is_offered_for_as_long_as_the_database_is_away(clock: Clock) -> None:
    run, began = supervised(), clock.now

    def record() -> bool:
        run.lease.database_away = clock.now < began + 5 * SETTLE_SECONDS
        return clock.now > began + 5.5 * SETTLE_SECONDS

    run._until_recorded(record)
    assert record()


def test_an_end_is_given_up_if_the_database_is_there(clock: Clock) -> None:
    began = clock.now
    supervised()._until_recorded(lambda: False)
    assert clock.now - began == pytest.approx(SETTLE_SECONDS, abs=2)


def test_reports_without_an_end_are_given_up(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    run, began = supervised(), clock.now

    def ship() -> bool:
        clock.now += 1
        assert clock.now < began + 2 * SETTLE_SECONDS
        return True

    monkeypatch.setattr(run._shipper, "ship", ship)
    run._settle(0, starved=False)
