"""The thread that sweeps, in every API process: the sweep's own lock sees to it that one works at a time."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import structlog

from jobs import lifecycle
from jobs.db import session_scope
from jobs.settings import get_settings

log = structlog.get_logger()
STOP_SECONDS = 5.0


@contextmanager
def sweeping(seconds: float) -> Iterator[None]:
    """Sweep every so many seconds, from now until the end."""
    stop = threading.Event()
    thread = threading.Thread(target=_sweep_until, args=(stop, seconds), name="sweeper", daemon=True)
    thread.start()
    yield
    stop.set()
    thread.join(STOP_SECONDS)


def _sweep_until(stop: threading.Event, seconds: float) -> None:
    recover_from = 0.0  # before that, workers that were cut off as this process was get time to renew
    while not stop.wait(seconds):
        try:
            with session_scope() as session:
                swept = lifecycle.sweep(session, recover=time.monotonic() >= recover_from)
        except Exception as error:  # the thread outlives every outage; the next round tries again
            log.warning("sweep failed", error=str(error).partition("\n")[0])
            recover_from = time.monotonic() + get_settings().lease_seconds
            continue
        if swept != lifecycle.Swept(woken=swept.woken):
            log.info("swept", **asdict(swept))
