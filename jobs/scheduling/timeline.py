"""What is free of one machine's GPUs, or of its CPU slots, from now on. Times in seconds from now."""

from bisect import bisect_left
from math import inf
from uuid import UUID


class Timeline:
    """From `times[i]` until the next, `free[i]` slots are neither held nor reserved. `free[0]`: now.

    What is reserved begins later than now, so a reservation never counts as held.
    """

    def __init__(self, machine: str, free: int) -> None:
        self.machine = machine
        self.times = [0.0]
        self.free = [free]
        self.jobs = 0  # that hold some of it now
        self._reserved: list[tuple[UUID, float, float]] = []  # who, from when, until when; by rank
        self._closed_by: UUID | None = None
        self._closed_from = inf

    @property
    def closed(self) -> bool:
        return self._closed_by is not None

    def hold(self, slots: int, seconds: float) -> None:
        """A job starts now."""
        self._change(-slots, 0.0, seconds)
        self.jobs += 1

    def release(self, slots: int, at: float) -> None:
        """What is held now is free again from `at` on."""
        self._change(slots, at, inf)

    def reserve(self, job: UUID, slots: int, start: float, seconds: float) -> None:
        self._change(-slots, start, start + seconds)
        self._reserved.append((job, start, start + seconds))

    def close(self, job: UUID) -> None:
        """Keep all that is or becomes free for one job, which starts nobody knows when, but after the jobs before it
        that nobody knows the end of."""
        self._closed_by = job
        self._closed_from = min((start for _, start, end in self._reserved if end == inf), default=0.0)

    def window(self, slots: int) -> float:
        """How long so many are free from now on, without a break."""
        return min(self._first_lack(slots), self._closed_from)

    def earliest(self, slots: int, seconds: float, latest: float) -> tuple[float, int]:
        """When so many are first free for so long, and how many more are free then; `inf` if not until `latest`."""
        times, frees = self.times, self.free
        since = None
        for i, free in enumerate(frees):
            if free < slots:
                if since is not None and times[i] >= times[since] + seconds:
                    break
                since = None
            elif since is None:
                if times[i] > latest:
                    break
                since = i
        if since is None or times[since] + seconds > self._closed_from:
            return inf, 0
        return times[since], frees[since] - slots

    def kept_for(self, slots: int) -> UUID | None:
        """The first in rank for whom so many are not free all the time."""
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
        """The index of the stretch that begins then."""
        i = bisect_left(self.times, time)
        if time < inf and (i == len(self.times) or self.times[i] != time):
            self.times.insert(i, time)
            self.free.insert(i, self.free[i - 1])
        return i
