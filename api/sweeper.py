"""The sweep in every API process; a lock ensures that only one process sweeps at a time."""

from dataclasses import asdict

import structlog

from jobs import lifecycle
from jobs.db import session_scope

log = structlog.get_logger()


class Sweeper:
    """Sweeps on each call; after an outage, it first gives workers time to renew their leases."""

    def __init__(self) -> None:
        self._recovery = lifecycle.Recovery()

    def __call__(self) -> None:
        try:
            with session_scope() as session:
                swept = lifecycle.sweep(session, recover=self._recovery.allowed())
        except Exception:
            self._recovery.delay()
            raise
        if swept != lifecycle.Swept(woken=swept.woken):
            log.info("swept", **asdict(swept))
