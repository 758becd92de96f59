"""The request to a process to stop, by a signal."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequested(BaseException):
    """The run shall stop, and the present step has changed nothing yet. No handler of errors takes it for one."""


class StopSignal:
    """True once the process shall stop: a signal arrived, or `also` says so."""

    def __init__(self, also: Callable[[], bool] = lambda: False) -> None:
        self._also = also
        self._received = False
        self._interrupts = False

    def __call__(self) -> bool:
        return self._received or self._also()

    def listen(self) -> None:
        """Receive SIGTERM and SIGINT from now on."""
        signal.signal(signal.SIGTERM, self.receive)
        signal.signal(signal.SIGINT, self.receive)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Note a signal.

        Raises:
            StopRequested: the main thread is in `interrupting`.
        """
        self._received = True
        if self._interrupts:
            self._interrupts = False
            raise StopRequested

    @contextmanager
    def interrupting(self, possible: bool = True) -> Iterator[None]:
        """Let a signal end this block at once with StopRequested. Use it where an exception at any instruction leaves
        nothing in a state that is saved."""
        self._interrupts = possible
        try:
            if possible and self._received:
                raise StopRequested
            yield
        finally:
            self._interrupts = False
