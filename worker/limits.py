"""Checks of a job's limits (`calibrl.schemas.Limits`) while it runs. Pure: reads neither a clock nor a GPU."""

from collections.abc import Sequence
from dataclasses import dataclass

from calibrl.schemas import GpuReading, Limits, Reason


@dataclass(frozen=True)
class LimitWarning:
    """Decision to record a warning event."""

    message: str


@dataclass(frozen=True)
class LimitExceeded:
    """Decision to end the job as failed."""

    reason: Reason
    message: str


class LimitWatch:
    """The limits of one claim.

    Args:
        limits: the limits of the job's spec.
        now: time of a monotonic clock at the claim's start, in seconds.
        ran_before: run time of the job's earlier attempts, in seconds.
    """

    def __init__(self, limits: Limits, now: float, ran_before: float = 0.0) -> None:
        self._limits = limits
        self._began = now - ran_before
        self._step: int | None = None
        self._stepped_at = now
        self._window_began = now
        self._utilisation: list[float] = []  # readings of the current window, percent
        self._idle_before = False  # the previous window was idle

    def check(self, now: float, step: int | None, gpus: Sequence[GpuReading]) -> LimitWarning | LimitExceeded | None:
        """Return the decision about the job at time `now`; None to let it run.

        Call it only if all that the trainer reported has been read: not while the database is unreachable.

        Args:
            now: time of the same clock, in seconds.
            step: the last reported step; None before the first.
            gpus: current readings of the job's GPUs.
        """
        return self._too_long(now) or self._no_progress(now, step) or self._idle(now, gpus)

    def _too_long(self, now: float) -> LimitExceeded | None:
        limit = self._limits.timeout_seconds
        if limit is None or now - self._began < limit:
            return None
        whose = "limits.timeout_seconds, or max_run_hours of its project"  # the lower one
        return LimitExceeded(
            Reason.TIMED_OUT, f"the job ran for {now - self._began:.0f} s; its maximum is {limit:g} s ({whose})"
        )

    def _no_progress(self, now: float, step: int | None) -> LimitExceeded | None:
        if step is not None and (self._step is None or step > self._step):
            self._step, self._stepped_at = step, now
        limit, seconds = self._limits.no_progress_seconds, now - self._stepped_at
        if limit is None or seconds < limit:
            return None
        last = "no step so far" if self._step is None else f"last step: {self._step}"
        message = f"no new step for {seconds:.0f} s ({last}); limits.no_progress_seconds is {limit:g}"
        return LimitExceeded(Reason.NO_PROGRESS, message)

    def _idle(self, now: float, gpus: Sequence[GpuReading]) -> LimitWarning | LimitExceeded | None:
        """Compare the mean utilisation of each window with the limit; a window without readings counts as busy."""
        self._utilisation += [gpu.utilisation for gpu in gpus]
        floor, seconds = self._limits.min_gpu_utilisation, now - self._window_began
        if floor is None or seconds < self._limits.gpu_idle_seconds:
            return None
        mean = sum(self._utilisation) / len(self._utilisation) if self._utilisation else floor
        was_idle, self._idle_before = self._idle_before, mean < floor
        self._window_began, self._utilisation = now, []
        if not self._idle_before:
            return None
        message = (
            f"mean GPU utilisation was {mean:.1f} % over {seconds:.0f} s; limits.min_gpu_utilisation is {floor:g} %"
        )
        return (
            LimitExceeded(Reason.IDLE_GPU, message)
            if was_idle
            else LimitWarning(f"{message}; if this continues, the job is ended")
        )
