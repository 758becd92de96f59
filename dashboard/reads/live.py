"""What is read piece by piece as a job goes on, shared by everyone who looks: a tick asks only for what is new."""

import math
import time
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from uuid import UUID

import streamlit as st

from calibrl import schemas
from calibrl.client import Client
from calibrl.schemas import Event, Job, SampleSummary
from dashboard import signin
from dashboard.charts.series import BUCKETS, COLUMNS, HistogramColumns, Series
from dashboard.reads.data import FRESH, client

LOG_TAIL = 50_000  # characters of a log that are shown
LOG_KEPT = 4_000_000  # characters of its end that a search looks through
PAGES_A_TICK = 200  # pages read in one go at most; what is left follows at the next tick
PACE_STEPS = 30  # over which a job's pace is taken


class _Reader:
    """Something read piece by piece by a cursor, by one viewer at a time, and not more often than FRESH."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._read_at = -math.inf

    def refresh(self) -> None:
        """Fetch what is new. Raises CalibrlError; what was read before stays."""
        with self._lock:
            if time.monotonic() - self._read_at < FRESH:
                return
            for _ in range(PAGES_A_TICK):
                if not self._read_page():
                    break
            self._read_at = time.monotonic()

    def _read_page(self) -> bool:
        """Read one page; whether there is more."""
        raise NotImplementedError


@dataclass
class Bucketed:
    """A metric's buckets so far."""

    start: list[int] = field(default_factory=list)
    last_step: list[int] = field(default_factory=list)
    ts: list[datetime] = field(default_factory=list)
    count: list[int] = field(default_factory=list)
    min: list[float | None] = field(default_factory=list)
    max: list[float | None] = field(default_factory=list)
    mean: list[float | None] = field(default_factory=list)

    def take(self, new: schemas.Series) -> bool:
        """Put buckets in the place of what begins where they do or later; whether that changed anything."""
        kept = bisect_left(self.start, new.start[0]) if new.start else len(self.start)
        changed = False
        for name in self.__dataclass_fields__:
            mine, theirs = getattr(self, name), getattr(new, name)
            changed = changed or mine[kept:] != theirs
            mine[kept:] = theirs
        return changed

    def copy(self) -> "Bucketed":
        """The same buckets, which later ones are not put into."""
        return Bucketed(**{name: list(getattr(self, name)) for name in self.__dataclass_fields__})


class History(_Reader):
    """Some of a job's metrics over its steps, in at most BUCKETS buckets: a long run shows as soon as a short one."""

    def __init__(self, job_id: UUID, names: Sequence[str]) -> None:
        super().__init__()
        self._job_id, self._names = job_id, list(names)
        self._clear()

    def _clear(self) -> None:
        self._width: int | None = None
        self._last_step = 0
        self._curves = {name: Bucketed() for name in self._names}
        self._drawn: dict[str, Series] = {}  # the same until there is more: figures are made once for all viewers

    def _read_page(self) -> bool:
        start = self._last_step // self._width * self._width if self._width else 0
        found = client().series(self._job_id, self._names, points=BUCKETS, from_step=start, width=self._width)
        last = found.last_step
        if self._width and (last is None or last < self._last_step or last // self._width >= BUCKETS):
            self._clear()  # an attempt went on from an earlier checkpoint, or buckets are twice as wide from now on
            return True
        if last is not None:
            self._width, self._last_step = found.width, last
        for series in found.series:
            if self._curves[series.name].take(series):
                self._drawn.pop(series.name, None)
        return False

    def series(self, name: str) -> Series:
        """A metric's curve so far; empty where the job does not report it."""
        with self._lock:
            if name not in self._drawn:
                curve = self._curves[name]
                self._drawn[name] = Series.of(curve.last_step, curve.mean, curve.min, curve.max)
            return self._drawn[name]

    def seconds_a_step(self, name: str) -> float | None:
        """Mean over the last steps that reported a metric, by their times; None before there are two."""
        with self._lock:
            steps, times = self._curves[name].last_step, self._curves[name].ts
            if len(steps) < 2:
                return None
            first = min(bisect_left(steps, steps[-1] - PACE_STEPS), len(steps) - 2)
            return (times[-1] - times[first]).total_seconds() / (steps[-1] - steps[first])


class Comparison(_Reader):
    """Some metrics of several jobs in buckets of the same steps, as one viewer may see them. `live`: those jobs that
    may report more."""

    def __init__(self, api: Client, ids: Sequence[UUID], names: Sequence[str], live: Collection[UUID]) -> None:
        super().__init__()
        self._api, self._ids, self._names, self._live = api, list(ids), list(names), frozenset(live)
        self._clear()

    def _clear(self) -> None:
        self._width: int | None = None
        self._curves: dict[tuple[UUID, str], Bucketed] = {}

    def curves(self) -> dict[tuple[UUID, str], Bucketed]:
        """The curves so far, by job and metric; those that no one has reported are left out."""
        with self._lock:
            return {key: curve.copy() for key, curve in self._curves.items()}

    def _newest(self) -> dict[UUID, int]:
        """The last step known of each job that goes on."""
        newest = dict.fromkeys(self._live, 0)
        for (job, _), curve in self._curves.items():
            if job in newest and curve.last_step:
                newest[job] = max(newest[job], curve.last_step[-1])
        return newest

    def _read_page(self) -> bool:
        known = self._newest()
        if self._width and not known:
            return False
        start = min(known.values()) // self._width * self._width if self._width else 0
        found = self._api.series(self._ids, self._names, points=BUCKETS, from_step=start, width=self._width)
        last = dict.fromkeys(known, 0)
        for series in found.series:
            self._curves.setdefault((series.job_id, series.name), Bucketed()).take(series)
            if series.job_id in last and series.last_step:
                last[series.job_id] = max(last[series.job_id], series.last_step[-1])
        too_many = self._width is not None and (found.last_step or 0) // self._width >= BUCKETS
        if too_many or any(last[job] < step for job, step in known.items()):
            self._clear()  # as for a single job
            return True
        self._width = found.width
        return False


class HistogramHistory(_Reader):
    """One histogram of a job over its steps, in at most COLUMNS columns."""

    def __init__(self, job_id: UUID, name: str) -> None:
        super().__init__()
        self._job_id, self._name = job_id, name
        self._last: int | None = None  # where the last column begins
        self._columns = HistogramColumns()
        self._drawn: HistogramColumns | None = None

    def columns(self) -> HistogramColumns:
        """The columns so far; another viewer's refresh does not change them, and until one the same are returned."""
        with self._lock:
            if self._drawn is None:
                self._drawn = self._columns.copy()
            return self._drawn

    def _read_page(self) -> bool:
        width = None if self._last is None else self._columns.width
        found = client().histograms(
            self._job_id, self._name, after_step=(self._last or 0) - 1, points=COLUMNS, width=width
        )
        rows = found.data
        if self._last is not None and (
            not rows or rows[0].step != self._last or rows[-1].step // self._columns.width >= COLUMNS
        ):
            self._last, self._columns, self._drawn = None, HistogramColumns(), None
            return True
        if rows and self._last is None:
            self._columns = HistogramColumns(rows[0].width)
        for row in rows:
            if self._columns.put(row.step, row.edges, row.counts):
                self._drawn = None
            self._last = row.step
        return False


class Samples(_Reader):
    """Which groups a job has kept whole."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__()
        self._job_id = job_id
        self.summaries: list[SampleSummary] = []

    def _read_page(self) -> bool:
        page = client().samples(self._job_id, after=self.summaries[-1].id if self.summaries else 0)
        self.summaries += page.data
        return page.has_more

    def by_step(self) -> dict[int, list[SampleSummary]]:
        """The groups of every sampled step, newest step first."""
        steps: dict[int, dict[int, SampleSummary]] = {}
        for summary in self.summaries:
            steps.setdefault(summary.step, {})[summary.id] = summary
        return {step: list(steps[step].values()) for step in sorted(steps, reverse=True)}


class Events(_Reader):
    """What happened to a job."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__()
        self._job_id = job_id
        self.events: list[Event] = []

    def _read_page(self) -> bool:
        page = client().events(self._job_id, after=self.events[-1].id if self.events else 0)
        self.events += page.data
        return page.has_more


class Log(_Reader):
    """The end of a job's log: `text` is searched, `shown` is what a page holds of it."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__()
        self._job_id, self._next = job_id, 0
        self.text, self._dropped = "", False

    @property
    def shown(self) -> str:
        return self.text[-LOG_TAIL:]

    @property
    def cut(self) -> bool:
        """Whether the log's beginning is not shown."""
        return self._dropped or len(self.text) > LOG_TAIL

    def _read_page(self) -> bool:
        chunk = client().log(self._job_id, after=self._next)
        more = chunk.next > self._next
        text = self.text + chunk.text
        self._dropped = self._dropped or len(text) > LOG_KEPT
        self.text, self._next = text[-LOG_KEPT:], chunk.next
        return more


@st.cache_resource(max_entries=128, show_spinner=False)
def history(job_id: UUID, attempt: int, names: tuple[str, ...]) -> History:
    """The shared history of these metrics; a new attempt begins a new one, as it may take steps back."""
    return History(job_id, names)


def comparison(jobs: Sequence[Job], names: Sequence[str]) -> Comparison:
    """What the viewer follows of several jobs: other viewers' rights may be others. A new attempt begins a new one."""
    live = frozenset(job.id for job in jobs if not job.status.final)
    return _comparison(signin.key(), tuple((job.id, job.attempt) for job in jobs), tuple(names), live)


@st.cache_resource(max_entries=64, show_spinner=False)
def _comparison(
    key: str, attempts: tuple[tuple[UUID, int], ...], names: tuple[str, ...], live: frozenset[UUID]
) -> Comparison:
    return Comparison(client(), [id for id, _ in attempts], names, live)


@st.cache_resource(max_entries=64, show_spinner=False)
def histogram(job_id: UUID, attempt: int, name: str) -> HistogramHistory:
    return HistogramHistory(job_id, name)


@st.cache_resource(max_entries=64, show_spinner=False)
def samples(job_id: UUID, attempt: int) -> Samples:
    return Samples(job_id)


@st.cache_resource(max_entries=64, show_spinner=False)
def events(job_id: UUID) -> Events:
    return Events(job_id)


@st.cache_resource(max_entries=64, show_spinner=False)
def log(job_id: UUID) -> Log:
    return Log(job_id)
