"""The contact of a running claim with the database: renews its lease, keeps the last order."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

import structlog
from sqlalchemy.orm import Session

from jobs import lifecycle
from jobs.db import is_disk_full, session_scope
from jobs.lifecycle import Claim, LeaseLost, Order
from jobs.repository import events
from jobs.settings import Settings
from worker.database_errors import AWAY

T = TypeVar("T")

RETRY_SECONDS = 1.0
ALONE_LEASES = 60  # leases without a renewal after which a run ends by itself: half an hour by default
STOP_SECONDS = 5.0

log = structlog.get_logger()


class _Ended(Exception):
    """The run ended during a heartbeat, which changes nothing then."""


class ClaimLease:
    """The lease of one claim. In its context a thread renews it, so that no copy, removal or slow disk of the run holds
    up a heartbeat. `database_away`: the last contact failed.

    Args:
        renew: renews the claim in a session and returns the order, such as `lifecycle.heartbeat`.
    """

    def __init__(self, claim: Claim, settings: Settings, renew: Callable[[Session, Claim], Order]) -> None:
        self._claim = claim
        self._settings = settings
        self._renew = renew
        self._order = Order.CONTINUE
        self._changing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_the_end, name="lease", daemon=True)
        self._away_since: float | None = None  # of the heartbeats
        self.database_away = False

    def __enter__(self) -> Self:
        self.beat()  # an order can wait already
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(STOP_SECONDS)

    @property
    def order(self) -> Order:
        """The last order received. ABANDON is final."""
        return self._order

    def contact(self, action: Callable[[], T]) -> T | None:
        """Run a database action; return None if the database is unreachable or the lease is lost."""
        try:
            result = action()
        except LeaseLost:
            self.beat()  # takes the job back if no worker has claimed it meanwhile
            return None
        except AWAY as error:
            self._note_away(error)
            return None
        if result:  # a shipper with nothing to ship does not query the database
            self.database_away = False
        return result

    def beat(self) -> bool:
        """Renew the lease and receive the order. Return False if the database is unreachable."""
        if self.order is Order.ABANDON:
            return True
        try:
            with session_scope() as session:
                order = self._renew(session, self._claim)
                if self._ended.is_set():  # the outcome has been recorded: no lease is renewed after it
                    raise _Ended
        except _Ended:
            return True
        except AWAY as error:
            self._note_away(error)
            self._away_since = self._away_since or _clock()
            if _clock() - self._away_since > ALONE_LEASES * self._settings.lease_seconds:
                self._set(Order.STOP)
            return False
        self.database_away, self._away_since = False, None
        self._set(order)
        return True

    def note(self, type: str, message: str) -> None:
        """Record an event of the job."""
        self.contact(lambda: self._note(type, message))

    def _renew_until_the_end(self) -> None:
        wait = often = self._settings.heartbeat_seconds
        while not self._ended.wait(wait) and self.order is not Order.ABANDON:
            try:
                wait = often if self.beat() else min(RETRY_SECONDS, often)  # the lease can expire meanwhile
            except Exception:  # the run must not lose its lease by a fault of one heartbeat
                log.exception("heartbeat failed", job=str(self._claim.job_id))
                wait = often

    def _set(self, order: Order) -> None:
        with self._changing:
            if self._order is not Order.ABANDON:
                self._order = order

    def _note_away(self, error: Exception) -> None:
        if not self.database_away:
            what = "disk of the database full" if is_disk_full(error) else "database away"
            log.warning(f"{what}; the run goes on", job=str(self._claim.job_id), error=str(error.__cause__))
        self.database_away = True

    def _note(self, type: str, message: str) -> bool:
        with session_scope() as session:
            job = lifecycle.fence(session, self._claim)
            events.add(session, job.id, type, actor=self._settings.worker_name, message=message)
        return True


def _clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # unlike the monotonic clock, it counts a machine's suspension
