"""The contact of a running claim with the database: renews its lease, keeps the last order."""

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy.orm import Session

from jobs import lifecycle
from jobs.db import session_scope
from jobs.lifecycle import Claim, LeaseLost, Order
from jobs.repository import events
from jobs.settings import Settings
from worker.database_errors import AWAY

T = TypeVar("T")

RETRY_SECONDS = 1.0

log = structlog.get_logger()


class ClaimLease:
    """The lease of one claim. `order`: the last order received. `database_away`: the last contact failed.

    Args:
        renew: renews the claim in a session and returns the order, such as `lifecycle.heartbeat`.
    """

    def __init__(self, claim: Claim, settings: Settings, renew: Callable[[Session, Claim], Order]) -> None:
        self._claim = claim
        self._settings = settings
        self._renew = renew
        self._next_beat = 0.0
        self.order = Order.CONTINUE
        self.database_away = False

    def contact(self, action: Callable[[], T]) -> T | None:
        """Run a database action; return None if the database is unreachable or the lease is lost."""
        try:
            result = action()
        except LeaseLost:
            self.order = Order.ABANDON
            return None
        except AWAY as error:
            if not self.database_away:
                log.warning("database away; the run goes on", job=str(self._claim.job_id), error=str(error.__cause__))
            self.database_away = True
            return None
        if result:  # a shipper with nothing to ship does not query the database
            self.database_away = False
        return result

    def beat_if_due(self) -> None:
        """Renew the lease if a heartbeat is due, unless it is lost."""
        if time.monotonic() < self._next_beat or self.order is Order.ABANDON:
            return
        self._next_beat = time.monotonic() + self._settings.heartbeat_seconds
        order = self.contact(self._beat)
        if order is None:  # try again soon: the lease can expire while the database is unreachable
            self._next_beat = time.monotonic() + min(RETRY_SECONDS, self._settings.heartbeat_seconds)
        else:
            self.order = order

    def note(self, type: str, message: str) -> None:
        """Record an event of the job."""
        self.contact(lambda: self._note(type, message))

    def _beat(self) -> Order:
        with session_scope() as session:
            return self._renew(session, self._claim)

    def _note(self, type: str, message: str) -> bool:
        with session_scope() as session:
            job = lifecycle.fence(session, self._claim)
            events.add(session, job.id, type, actor=self._settings.worker_name, message=message)
        return True
