"""The sweep, as every API process does it: the sweep's own lock sees to it that one works at a time."""

import time
from dataclasses import asdict

import structlog

from jobs import lifecycle
from jobs.db import session_scope
from jobs.settings import get_settings

log = structlog.get_logger()


class Sweeper:
    """Sweeps, each time it is called; after an outage it first gives workers time to renew their leases."""

    def __init__(self) -> None:
        self._recover_from = 0.0  # before that, workers that were cut off as this process was get time to renew

    def __call__(self) -> None:
        try:
            with session_scope() as session:
                swept = lifecycle.sweep(session, recover=time.monotonic() >= self._recover_from)
        except Exception:
            self._recover_from = time.monotonic() + get_settings().lease_seconds
            raise
        if swept != lifecycle.Swept(woken=swept.woken):
            log.info("swept", **asdict(swept))
