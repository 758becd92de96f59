"""Free slots of one machine over time: its GPUs, or its CPU slots. Times in seconds from now."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from math import inf
from uuid import UUID


class Timeline:
    """Free slots over time: from `times[i]` to the next time, `free[i]` slots are neither held nor reserved. `free[0]`:
    now.

    A reservation always begins later than now, so it never counts as held.
    """

    def __init__(self, machine: str, free: int) -> None:
        self.machine = machine
        self.times = [0.0]
        self.free = [free]
        self.jobs = 0  # number of jobs that hold slots now
        self._reserved: list[tuple[UUID, float, float]] = []  # (job, start, end) by rank
        self._closed_by: UUID | None = None
        self._closed_from = inf

    @property
    def closed(self) -> bool:
        return self._closed_by is not None

    def hold(self, slots: int, seconds: float) -> None:
        """Hold slots for a job that starts now."""
        self._change(-slots, 0.0, seconds)
        self.jobs += 1

    def release(self, slots: int, at: float) -> None:
        """Free slots that are held now, from `at` on."""
        self._change(slots, at, inf)

    def reserve(self, job: UUID, slots: int, start: float, seconds: float) -> None:
        """Reserve slots for a job from `start` for `seconds`."""
        self._change(-slots, start, start + seconds)
        self._reserved.append((job, start, start + seconds))

    def close(self, job: UUID) -> None:
        """Reserve all current and future free slots for `job`. Its start is unknown because jobs ahead of it have no
        known end."""
        self._closed_by = job
        self._closed_from = min((start for _, start, end in self._reserved if end == inf), default=0.0)

    def window(self, slots: int) -> float:
        """Return for how many seconds from now `slots` are free without a break."""
        return min(self._first_lack(slots), self._closed_from)

    def earliest(self, slots: int, seconds: float, after: float, before: float) -> float:
        """Return the first time from `after` on at which `slots` are free for `seconds`, or `inf` if there is none
        before `before`."""
        since = None
        for i in range(bisect_right(self.times, after) - 1, len(self.times)):
            if self.free[i] < slots:
                if since is not None and self.times[i] >= since + seconds:
                    break
                since = None
            elif since is None:
                start = max(self.times[i], after)
                if start >= before:
                    break
                since = start
        if since is None or since + seconds > self._closed_from:
            return inf
        return since

    def kept_for(self, slots: int) -> UUID | None:
        """Return the job of the highest rank whose reservation prevents `slots` from being free without end, or
        None."""
        lack = self._first_lack(slots)
        if self._closed_from < lack:
            return self._closed_by
        return next((job for job, start, end in self._reserved if start <= lack < end), None)

    def _first_lack(self, slots: int) -> float:
        return next((time for time, free in zip(self.times, self.free, strict=True) if free < slots), inf)

    def _change(self, slots: int, start: float, end: float) -> None:
        for i in range(self._cut(start), self._cut(end)):
            self.free[i] += slots

    def _cut(self, time: float) -> int:
        """Split the timeline at a time and return the index of the part that begins there."""
        i = bisect_left(self.times, time)
        if time < inf and (i == len(self.times) or self.times[i] != time):
            self.times.insert(i, time)
            self.free.insert(i, self.free[i - 1])
        return i


def earliest_together(
    timelines: Sequence[Timeline], count: int, slots: int, seconds: float
) -> tuple[float, list[Timeline]] | None:
    """Return the first time at which `count` timelines have `slots` free for `seconds`, and the first of `timelines`
    that have; None if there is no such time.

    Each round finds for every timeline its earliest time from the last bound on. No common time is before the
    `count`-th of these, which is the next bound.
    """
    bound = 0.0
    while True:
        found: list[tuple[float, int]] = []  # the earliest `count`, by time and place
        for i, timeline in enumerate(timelines):
            before = found[-1][0] if len(found) == count else inf
            start = timeline.earliest(slots, seconds, bound, before)
            if start < before:
                insort(found, (start, i))
                del found[count:]
        if len(found) < count:
            return None
        bound = found[-1][0]
        if found[0][0] == bound:
            return bound, [timelines[i] for _, i in found]
