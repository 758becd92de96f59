"""Incremental reads while a job runs, shared by all viewers: a tick reads only what is new."""

import math
import time
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean
from threading import Lock
from uuid import UUID

import streamlit as st

from calibrl import schemas
from calibrl.client import Client
from calibrl.schemas import Curves, Event, JobSummary, SampleSummary
from dashboard import signin
from dashboard.charts.series import BUCKETS, COLUMNS, HistogramColumns, StepSeries
from dashboard.reads.service import FRESH, client, live_client

LOG_TAIL = 50_000  # characters of a log on the page
LOG_KEPT = 4_000_000  # characters of a log's end that a search covers
JOBS_PER_CALL = 32  # whose curves one call returns
MANY = 8  # compared jobs, from which on each curve has fewer buckets
PAGES_PER_TICK = 200  # the next tick reads the rest
PACE_STEPS = 30  # steps over which the seconds per step are averaged
STEP_SECONDS = "perf/step_seconds"


class _Reader:
    """Reads pages by a cursor, by one viewer at a time, at most once per FRESH seconds."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._read_at = -math.inf

    def refresh(self) -> None:
        """Read what is new.

        Raises:
            CalibrlError: older data stays.
        """
        with self._lock:
            if time.monotonic() - self._read_at < FRESH:
                return
            for _ in range(PAGES_PER_TICK):
                if not self._read_page():
                    break
            self._read_at = time.monotonic()

    def _read_page(self) -> bool:
        """Read one page. Return true if there is more."""
        raise NotImplementedError


@dataclass
class Buckets:
    """The buckets of one metric so far."""

    start: list[int] = field(default_factory=list)
    first_step: list[int] = field(default_factory=list)
    last_step: list[int] = field(default_factory=list)
    ts: list[datetime] = field(default_factory=list)
    count: list[int] = field(default_factory=list)
    non_finite: list[int] = field(default_factory=list)
    min: list[float | None] = field(default_factory=list)
    max: list[float | None] = field(default_factory=list)
    mean: list[float | None] = field(default_factory=list)
    last: list[float | None] = field(default_factory=list)

    def replace_from(self, new: schemas.Series) -> bool:
        """Replace the buckets from the first new one on. Return true if that changed a value."""
        kept = bisect_left(self.start, new.start[0]) if new.start else len(self.start)
        changed = False
        for name in self.__dataclass_fields__:
            mine, theirs = getattr(self, name), getattr(new, name)
            changed = changed or mine[kept:] != theirs
            mine[kept:] = theirs
        return changed

    def at(self, places: Sequence[int]) -> StepSeries:
        """Return the values at these places, one per bucket, such as the last step of each."""
        first = self.first_step if places is self.last_step else places
        bounds = (self.mean, self.min, self.max)
        return StepSeries.of(places, *bounds, first=first, latest=self.last, non_finite=self.non_finite)

    def copy(self) -> "Buckets":
        """Return a copy that later reads do not change."""
        return Buckets(**{name: list(getattr(self, name)) for name in self.__dataclass_fields__})


class History(_Reader):
    """Metrics of one job over its steps, in at most BUCKETS buckets: a long run loads as fast as a short one."""

    def __init__(self, job_id: UUID, names: Sequence[str]) -> None:
        super().__init__()
        self._job_id, self._names = job_id, list(names)
        self._clear()

    def _clear(self) -> None:
        self._width: int | None = None
        self._last_step = 0
        self._curves = {name: Buckets() for name in self._names}
        self._drawn: dict[str, StepSeries] = {}  # the same objects until new data, for cached figures

    def _read_page(self) -> bool:
        start = self._last_step // self._width * self._width if self._width else 0
        curves = live_client().series(self._job_id, self._names, points=BUCKETS, from_step=start, width=self._width)
        last = curves.last_step
        if self._width and (last is None or last < self._last_step or last // self._width >= BUCKETS):
            self._clear()  # a new attempt continued from an earlier checkpoint, or the buckets are now twice as wide
            return True
        if last is not None:
            self._width, self._last_step = curves.width, last
        for series in curves.series:
            if self._curves[series.name].replace_from(series):
                self._drawn.pop(series.name, None)
        return False

    def curves(self) -> dict[str, StepSeries]:
        """Return the curves of all its metrics so far, by metric; empty ones of metrics that the job does not report.

        A curve is the same object until a refresh changes it.
        """
        with self._lock:
            return self._by_step()

    def curves_and_buckets(self) -> tuple[dict[str, StepSeries], dict[str, Buckets]]:
        """Return `curves` and the buckets of one moment, by metric."""
        with self._lock:
            return self._by_step(), {name: curve.copy() for name, curve in self._curves.items()}

    def _by_step(self) -> dict[str, StepSeries]:
        for name, curve in self._curves.items():
            if name not in self._drawn:
                self._drawn[name] = curve.at(curve.last_step)
        return {name: self._drawn[name] for name in self._curves}  # in the order of the names, which is a cache key

    def seconds_per_step(self, since: datetime | None) -> float | None:
        """Return the mean time between the last steps after `since`, the start of the attempt: pauses do not count.

        Before it has two steps: the mean of STEP_SECONDS over the last steps. None if the job does not report it.
        """
        with self._lock:
            curve = self._curves[STEP_SECONDS]
            steps, times = curve.last_step, curve.ts
            if not steps:
                return None
            first = max(bisect_left(steps, steps[-1] - PACE_STEPS), bisect_left(times, since) if since else 0)
            if first < len(steps) - 1:
                return (times[-1] - times[first]).total_seconds() / (steps[-1] - steps[first])
            lasted = [mean for mean in curve.mean[bisect_left(steps, steps[-1] - PACE_STEPS) :] if mean is not None]
            return fmean(lasted) if lasted else None


class ComparedCurves(_Reader):
    """Metrics of several jobs in buckets of the same steps, for one viewer. `live`: the jobs that have not ended. The
    more jobs, the fewer buckets.
    """

    def __init__(self, api: Client, ids: Sequence[UUID], names: Sequence[str], live: Collection[UUID]) -> None:
        super().__init__()
        self._api, self._ids, self._names, self._live = api, list(ids), list(names), frozenset(live)
        self._most = BUCKETS if len(ids) <= MANY else BUCKETS // 4  # buckets
        self._clear()

    def _clear(self) -> None:
        self._width: int | None = None
        self._curves: dict[tuple[UUID, str], Buckets] = {}

    def curves(self) -> dict[tuple[UUID, str], Buckets]:
        """Return the curves so far, by job and metric, without metrics that a job has not reported."""
        with self._lock:
            return {key: curve.copy() for key, curve in self._curves.items()}

    def _latest(self) -> dict[UUID, int]:
        """The last step of each live job so far."""
        latest = dict.fromkeys(self._live, 0)
        for (job, _), curve in self._curves.items():
            if job in latest and curve.last_step:
                latest[job] = max(latest[job], curve.last_step[-1])
        return latest

    def _read_page(self) -> bool:
        before = self._latest()
        if self._width and not before:
            return False
        start = min(before.values()) // self._width * self._width if self._width else 0
        answers = self._answers(start)
        width, last_step = answers[0].width, max(answer.last_step or 0 for answer in answers)
        last = dict.fromkeys(before, 0)
        for series in (series for answer in answers for series in answer.series):
            self._curves.setdefault((series.job_id, series.name), Buckets()).replace_from(series)
            if series.job_id in last and series.last_step:
                last[series.job_id] = max(last[series.job_id], series.last_step[-1])
        too_many = self._width is not None and last_step // self._width >= self._most
        if too_many or any(last[job] < step for job, step in before.items()):
            self._clear()  # for the reasons of a single job
            return True
        self._width = width
        return False

    def _answers(self, start: int) -> list[Curves]:
        """The curves from a step on, of some jobs each, all in buckets of one width."""
        parts = [self._ids[first : first + JOBS_PER_CALL] for first in range(0, len(self._ids), JOBS_PER_CALL)]

        def ask(ids: list[UUID], width: int | None) -> Curves:
            return self._api.series(ids, self._names, points=self._most, from_step=start, width=width)

        answers = [ask(part, self._width) for part in parts]
        widest = max(answer.width for answer in answers)
        return [
            answer if answer.width == widest else ask(part, widest) for part, answer in zip(parts, answers, strict=True)
        ]


class HistogramHistory(_Reader):
    """One histogram of a job over its steps, in at most COLUMNS columns."""

    def __init__(self, job_id: UUID, name: str) -> None:
        super().__init__()
        self._job_id, self._name = job_id, name
        self._last: int | None = None  # first step of the last column
        self._columns = HistogramColumns()
        self._drawn: HistogramColumns | None = None

    def columns(self) -> HistogramColumns:
        """Return the columns so far: the same object until a refresh, which does not change it."""
        with self._lock:
            if self._drawn is None:
                self._drawn = self._columns.copy()
            return self._drawn

    def _read_page(self) -> bool:
        width = None if self._last is None else self._columns.width
        page = live_client().histograms(
            self._job_id, self._name, after_step=(self._last or 0) - 1, points=COLUMNS, width=width
        )
        rows = page.data
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
    """Summaries of the sampled groups of a job."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__()
        self._job_id = job_id
        self.summaries: list[SampleSummary] = []

    def _read_page(self) -> bool:
        page = live_client().samples(self._job_id, after=self.summaries[-1].id if self.summaries else 0)
        self.summaries += page.data
        return page.has_more

    def by_step(self) -> dict[int, list[SampleSummary]]:
        """Return the groups by sampled step, latest step first."""
        steps: dict[int, dict[int, SampleSummary]] = {}
        for summary in self.summaries:
            steps.setdefault(summary.step, {})[summary.id] = summary
        return {step: list(steps[step].values()) for step in sorted(steps, reverse=True)}


class Events(_Reader):
    """Events of a job."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__()
        self._job_id = job_id
        self.events: list[Event] = []

    def _read_page(self) -> bool:
        page = live_client().events(self._job_id, after=self.events[-1].id if self.events else 0)
        self.events += page.data
        return page.has_more


class LogTail(_Reader):
    """The end of a job's log: `text` is searched, `shown` is on the page."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__()
        self._job_id, self._next = job_id, 0
        self.text, self._dropped = "", False

    @property
    def shown(self) -> str:
        """The end of the log, at most LOG_TAIL characters."""
        return self.text[-LOG_TAIL:]

    @property
    def cut(self) -> bool:
        """True if the beginning of the log is not shown."""
        return self._dropped or len(self.text) > LOG_TAIL

    def _read_page(self) -> bool:
        chunk = live_client().log(self._job_id, after=self._next)
        more = chunk.next > self._next
        text = self.text + chunk.text
        self._dropped = self._dropped or len(text) > LOG_KEPT
        self.text, self._next = text[-LOG_KEPT:], chunk.next
        return more


@st.cache_resource(max_entries=128, show_spinner=False)
def history(job_id: UUID, attempt: int, names: tuple[str, ...]) -> History:
    """Return the shared history of these metrics; a new attempt has a new one, because it can repeat steps."""
    return History(job_id, names)


def compared_curves(jobs: Sequence[JobSummary], names: Sequence[str]) -> ComparedCurves:
    """Return the curves of several jobs, cached per API key and attempt: viewers have different access rights."""
    live = frozenset(job.id for job in jobs if not job.status.final)
    return _compared_curves(signin.key(), tuple((job.id, job.attempt) for job in jobs), tuple(names), live)


@st.cache_resource(max_entries=64, show_spinner=False)
def _compared_curves(
    key: str, attempts: tuple[tuple[UUID, int], ...], names: tuple[str, ...], live: frozenset[UUID]
) -> ComparedCurves:
    return ComparedCurves(client(), [id for id, _ in attempts], names, live)


@st.cache_resource(max_entries=64, show_spinner=False)
def histogram(job_id: UUID, attempt: int, name: str) -> HistogramHistory:
    """Return the shared history of a histogram."""
    return HistogramHistory(job_id, name)


@st.cache_resource(max_entries=64, show_spinner=False)
def samples(job_id: UUID, attempt: int) -> Samples:
    """Return the shared summaries of sampled groups."""
    return Samples(job_id)


@st.cache_resource(max_entries=64, show_spinner=False)
def events(job_id: UUID) -> Events:
    """Return the shared events of a job."""
    return Events(job_id)


@st.cache_resource(max_entries=64, show_spinner=False)
def log(job_id: UUID) -> LogTail:
    """Return the shared end of a job's log."""
    return LogTail(job_id)
