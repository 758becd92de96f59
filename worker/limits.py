"""A job's own limits (`calibrl.schemas.Limits`), watched while it runs. No clock and no GPU is read here."""

from collections.abc import Sequence
from dataclasses import dataclass

from calibrl.schemas import GpuReading, Limits, Reason


@dataclass(frozen=True)
class Warn:
    """Tell the job's people."""

    message: str


@dataclass(frozen=True)
class End:
    """End the job: it has failed."""

    reason: Reason
    message: str


class Watch:
    """The limits of one claim. `now`: seconds of a clock that only goes forward, at the claim's start.

    `ran_before`: seconds that the job's earlier attempts ran.
    """

    def __init__(self, limits: Limits, now: float, ran_before: float = 0.0) -> None:
        self._limits = limits
        self._began = now - ran_before
        self._step: int | None = None
        self._stepped_at = now
        self._window_began = now
        self._utilisation: list[float] = []  # readings of this window, percent
        self._idle_before = False  # in the window before this one

    def check(self, now: float, step: int | None, gpus: Sequence[GpuReading]) -> Warn | End | None:
        """What to do about the job now.

        `step`: the last that it has told, None before the first; don't ask while something it told is still unread, as
        when the database is away. `gpus`: those it holds, as just read.
        """
        return self._too_long(now) or self._no_progress(now, step) or self._idle(now, gpus)

    def _too_long(self, now: float) -> End | None:
        limit = self._limits.timeout_seconds
        if limit is None or now - self._began < limit:
            return None
        return End(Reason.TIMED_OUT, f"it has run for {now - self._began:.0f} s; limits.timeout_seconds is {limit:g}")

    def _no_progress(self, now: float, step: int | None) -> End | None:
        if step is not None and (self._step is None or step > self._step):
            self._step, self._stepped_at = step, now
        limit, seconds = self._limits.no_progress_seconds, now - self._stepped_at
        if limit is None or seconds < limit:
            return None
        last = "none at all" if self._step is None else f"the last was {self._step}"
        message = f"no new step for {seconds:.0f} s ({last}); limits.no_progress_seconds is {limit:g}"
        return End(Reason.NO_PROGRESS, message)

    def _idle(self, now: float, gpus: Sequence[GpuReading]) -> Warn | End | None:
        """One window follows the other; a window without any reading says nothing."""
        self._utilisation += [gpu.utilisation for gpu in gpus]
        floor, seconds = self._limits.min_gpu_utilisation, now - self._window_began
        if floor is None or seconds < self._limits.gpu_idle_seconds:
            return None
        mean = sum(self._utilisation) / len(self._utilisation) if self._utilisation else floor
        was_idle, self._idle_before = self._idle_before, mean < floor
        self._window_began, self._utilisation = now, []
        if not self._idle_before:
            return None
        message = f"its GPUs were used {mean:.1f} % over {seconds:.0f} s; limits.min_gpu_utilisation is {floor:g} %"
        return End(Reason.IDLE_GPU, message) if was_idle else Warn(f"{message}; if it stays so, the job is ended")
