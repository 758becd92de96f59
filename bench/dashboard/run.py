"""The viewed job: a long history, and one new step per second."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from uuid import UUID

from bench.machine import MACHINE, HoldingMachine
from calibrl_core.metrics import FAMILIES
from calibrl_core.report import EventFile
from worker.shipper import BATCH_LINES, Shipper

METRICS = 60
SECONDS_A_STEP = 1.0


@cache
def names() -> list[str]:
    """Names of metrics that trainers report."""
    registered = [metric.name for family in FAMILIES for metric in family.metrics if "<" not in metric.name]
    assert len(registered) >= METRICS
    return registered[:METRICS]


def _values(step: int) -> dict[str, float]:
    made = random.Random(step)
    return {name: made.gauss(0.5, 0.1) for name in names()}


class LongRun:
    """A running job, held by the benchmark's machine; during its block, it reports a step per second."""

    def __init__(self, folder: Path) -> None:
        [claim] = HoldingMachine().hold(1)
        self.job_id: UUID = claim.job_id
        self._file = EventFile(folder / str(claim.job_id))
        self._shipper = Shipper(claim, folder / str(claim.job_id), MACHINE)
        self._step = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)

    def fill(self, steps: int, advance: Callable[[float], None]) -> None:
        """Report and ship a number of steps."""
        for _ in range(steps):
            self._report()
            if self._step % BATCH_LINES == 0:
                self._shipper.ship()
                advance(BATCH_LINES)
        while self._shipper.ship():
            pass

    def __enter__(self) -> LongRun:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _report(self) -> None:
        self._step += 1
        self._file.emit("metrics", step=self._step, values=_values(self._step))

    def _go_on(self) -> None:
        while not self._stop.wait(SECONDS_A_STEP):
            self._report()
            self._shipper.ship()
