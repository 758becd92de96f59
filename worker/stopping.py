"""How long a trainer that was asked to end has before it is killed."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from jobs.lifecycle import Order
from jobs.settings import Settings
from worker.attempt_folder import CHECKPOINTS
from worker.trainer_process import END_SECONDS

MARGIN = 1.5  # a step can take longer than the longest recent one


class Stopping:
    """The end of one trainer. It has time for its step, as long as recent steps took, and more while it saves a
    checkpoint, up to `max_stop_grace_seconds` in all."""

    def __init__(self, run_dir: Path, settings: Settings) -> None:
        self._checkpoints = run_dir / CHECKPOINTS
        self._settings = settings
        self._kill_at: float | None = None
        self._latest = 0.0
        self._hastened = False
        self._saved_bytes = 0

    @property
    def asked(self) -> bool:
        return self._kill_at is not None

    def ask(self, order: Order, longest_step: float) -> None:
        """Note that the trainer is asked to end now. `longest_step`: seconds of its longest recent step."""
        now, grace = time.monotonic(), self._settings.stop_grace_seconds
        self._kill_at = self._latest = now + grace
        if order is Order.END:  # it cannot go on without the other machine, which has ended
            self._kill_at = self._latest = now + END_SECONDS
        elif order in (Order.PAUSE, Order.STOP):  # the job will go on: its work is kept
            self._latest = now + max(grace, self._settings.max_stop_grace_seconds)
            self._kill_at = min(self._latest, now + max(grace, MARGIN * longest_step))
        self._saved_bytes = self._partial_bytes()

    def hasten(self) -> None:
        """Give the trainer no more than the shortest time from now on: its work is not needed any more."""
        if self._kill_at is not None and not self._hastened:
            self._hastened = True
            self._latest = time.monotonic() + self._settings.stop_grace_seconds
            self._kill_at = min(self._kill_at, self._latest)

    def over(self) -> bool:
        """Return True once the trainer must be killed."""
        now = time.monotonic()
        if self._kill_at is None or now < self._kill_at:
            return False
        saved = self._partial_bytes()
        if saved != self._saved_bytes and now < self._latest:
            self._saved_bytes = saved
            self._kill_at = min(self._latest, now + max(1.0, self._settings.stop_grace_seconds))
            return False
        return True

    def _partial_bytes(self) -> int:
        """Return the bytes of checkpoints that are not complete."""
        return sum(self._sizes())

    def _sizes(self) -> Iterator[int]:
        for folder in self._checkpoints.glob(".partial-*"):
            for parent, _, files in os.walk(folder):
                for name in files:
                    with suppress(OSError):  # it has been completed
                        yield (Path(parent) / name).stat().st_size
