"""The thread that sweeps, in every API process: the sweep's own lock sees to it that one works at a time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import structlog

from jobs import lifecycle
from jobs.db import session_scope

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
    while not stop.wait(seconds):
        try:
            with session_scope() as session:
                swept = lifecycle.sweep(session)
        except Exception as error:  # the thread outlives every outage; the next round tries again
            log.warning("sweep failed", error=str(error).partition("\n")[0])
            continue
        if swept != lifecycle.Swept(woken=swept.woken):
            log.info("swept", **asdict(swept))
