"""Time of the phases of a step."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class PhaseClock:
    """Seconds per phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - began

    def metrics(self, tokens: float) -> dict[str, float]:
        total = sum(self.seconds.values())
        phases = {f"perf/{phase}_seconds": seconds for phase, seconds in self.seconds.items()}
        return {**phases, "perf/step_seconds": total, "perf/tokens_per_second": tokens / total}
