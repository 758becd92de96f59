"""A process of the stack that is started again when it ends."""

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from calibrl.processes import children
from calibrl.processes.children import Process
from calibrl.stack.services import StackError, last_line

MOST_ENDS = 5  # within WINDOW_SECONDS; one more, and a restart does not fix the cause
WINDOW_SECONDS = 600.0


class KeptProcess:
    """`start` starts the process, also again after `stop`, which ends it with all that it started."""

    def __init__(self, name: str, log: Path, start: Callable[[], Process], stop: Callable[[Process], object]) -> None:
        self.name, self.log = name, log
        self._start, self._stop = start, stop
        self._ends = deque[float](maxlen=MOST_ENDS + 1)
        self.process = start()

    @property
    def end(self) -> str | None:
        """A sentence about the end of the process, or None while it runs."""
        if not children.ended(self.process):
            return None
        return f"{self.name} has ended: {last_line(self.log)} (see {self.log})"

    def stop(self) -> None:
        """End the process."""
        self._stop(self.process)

    def restart(self) -> None:
        """Start the process again after its end.

        Raises:
            StackError: it has ended too often.
        """
        self._ends.append(time.monotonic())
        if len(self._ends) > MOST_ENDS and self._ends[-1] - self._ends[0] < WINDOW_SECONDS:
            raise StackError(f"{self.end}; it ended {len(self._ends)} times in {WINDOW_SECONDS / 60:.0f} minutes")
        self.stop()
        self.process = self._start()
