"""Background threads of an API process: each repeats one task until the process ends."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger()
STOP_SECONDS = 5.0


@contextmanager
def repeating(name: str, seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """Do something every so many seconds, from now until the end."""
    stop = threading.Event()
    thread = threading.Thread(target=_repeat, args=(stop, name, seconds, act), name=name, daemon=True)
    thread.start()
    yield
    stop.set()
    thread.join(STOP_SECONDS)


def _repeat(stop: threading.Event, name: str, seconds: float, act: Callable[[], object]) -> None:
    while not stop.wait(seconds):
        try:
            act()
        except Exception as error:  # the thread survives every outage; the next round tries again
            log.warning(f"{name} failed", error=str(error).partition("\n")[0])
