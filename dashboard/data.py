"""Reads from the API, shared by everyone who looks. A tick asks only for what is new since the last one."""

import math
import time
from collections.abc import Sequence
from datetime import datetime
from threading import Lock
from typing import Any
from uuid import UUID

import streamlit as st

from calibrl.client import Client
from dashboard import signin
from dashboard.series import POINTS, HistogramColumns, Series
from jobs.schemas import (
    Checkpoint,
    Curves,
    Event,
    Job,
    JobStatus,
    JobSummary,
    Me,
    Page,
    QueueEntry,
    Sample,
    SampleSummary,
    Worker,
)

TICK = 1.0  # seconds between a live panel's reads
LIST_TICK = 2.0  # seconds between the jobs list's reads while a job on it is yet to end
IDLE_TICK = 10.0  # seconds between them when all have ended: a new job shows by itself
FRESH = 0.5  # seconds for which a read serves every viewer
QUEUE_FRESH = 5.0  # the same for the queue, for which the service makes a whole plan
LOG_TAIL = 50_000  # characters of a log that are shown
PAGES_A_TICK = 200  # pages read in one go at most; what is left follows at the next tick


@st.cache_resource(max_entries=256, show_spinner=False)
def _client(key: str) -> Client:
    return Client(api_key=key)


def client() -> Client:
    """The API client of who looks: the service sees to it that nobody reads more than they may.

    What is shared between viewers below goes by a job's id: a page reads the job itself first, with the viewer's own
    key, again at each tick.
    """
    return _client(signin.key())


def jobs(status: JobStatus | None, kind: str | None, after: UUID | None, limit: int) -> Page[JobSummary]:
    """A page of the viewer's jobs, newest first."""
    return _jobs(signin.key(), status, kind, after, limit)


@st.cache_resource(ttl=FRESH, max_entries=256, show_spinner=False)
def _jobs(key: str, status: JobStatus | None, kind: str | None, after: UUID | None, limit: int) -> Page[JobSummary]:
    return _client(key).jobs(status=status, kind=kind, after=after, limit=limit)


def job(job_id: str) -> Job:
    """A job as it stands, if the viewer may see it."""
    return _job(signin.key(), job_id)


@st.cache_resource(ttl=FRESH, max_entries=1024, show_spinner=False)
def _job(key: str, job_id: str) -> Job:
    return _client(key).job(job_id)


def changed() -> None:
    """Read jobs anew: somebody here has just asked something of one."""
    for cached in (_job, _jobs, _queue, _whole_queue, _workers):
        cached.clear()


@st.cache_resource(max_entries=1000, show_spinner=False)
def results(job_id: UUID, attempt: int) -> list[dict[str, Any]]:
    """What an evaluation that has succeeded found."""
    found: list[dict[str, Any]] = (client().job(job_id).result or {}).get("results", [])
    return found


def queue(project: str) -> dict[UUID, QueueEntry]:
    """A project's jobs that have not started, by id."""
    return _queue(signin.key(), project)


@st.cache_resource(ttl=QUEUE_FRESH, max_entries=256, show_spinner=False)
def _queue(key: str, project: str) -> dict[UUID, QueueEntry]:
    return {entry.job_id: entry for entry in _client(key).queue(project)}


def whole_queue() -> list[QueueEntry]:
    """The viewer's jobs that have not started, those in line first."""
    return _whole_queue(signin.key())


@st.cache_resource(ttl=FRESH * 4, max_entries=256, show_spinner=False)
def _whole_queue(key: str) -> list[QueueEntry]:
    return _client(key).queue()


def comparison(ids: tuple[str, ...], names: tuple[str, ...]) -> Curves:
    """Curves of several jobs that the viewer may see, bucketed to the same steps."""
    return _comparison(signin.key(), ids, names)


@st.cache_resource(ttl=FRESH * 2, max_entries=64, show_spinner=False)
def _comparison(key: str, ids: tuple[str, ...], names: tuple[str, ...]) -> Curves:
    return _client(key).series(ids, names, points=POINTS)


def workers() -> list[Worker]:
    """The machines that run jobs."""
    return _workers(signin.key())


@st.cache_resource(ttl=FRESH * 2, max_entries=256, show_spinner=False)
def _workers(key: str) -> list[Worker]:
    return _client(key).workers()


def me() -> Me:
    """Who looks, and what they may do."""
    return _me(signin.key())


@st.cache_resource(ttl=30.0, max_entries=256, show_spinner=False)
def _me(key: str) -> Me:
    return _client(key).me()


@st.cache_resource(max_entries=5000, show_spinner=False)
def last_values(job_id: UUID, attempt: int, step: int, names: tuple[str, ...]) -> dict[str, float]:
    """The newest finite value of each metric within the last 50 steps before `step`."""
    page = client().metrics(job_id, names=list(names), after_step=max(step - 50, -1), limit=50)
    found: dict[str, float] = {}
    for row in page.data:
        found |= {name: value for name, value in row.values.items() if isinstance(value, float)}
    return found


@st.cache_resource(ttl=FRESH, max_entries=64, show_spinner=False)
def checkpoints(job_id: UUID) -> list[Checkpoint]:
    return client().checkpoints(job_id)


@st.cache_resource(max_entries=128, show_spinner=False)
def sample(job_id: UUID, sample_id: int) -> Sample:
    """A sampled group, which never changes once it is there."""
    return client().sample(job_id, sample_id)


def whole_log(job_id: UUID) -> str:
    """A job's log from its first byte to its last, for a download."""
    parts, after = [], 0
    while (chunk := client().log(job_id, after=after)).next > after:
        parts.append(chunk.text)
        after = chunk.next
    return "".join(parts)


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


class History(_Reader):
    """Some of a job's metrics over its steps."""

    def __init__(self, job_id: UUID, names: Sequence[str]) -> None:
        super().__init__()
        self._job_id, self._names = job_id, list(names)
        self._clear()

    def _clear(self) -> None:
        self._last_step = -1
        self._times: list[tuple[int, datetime]] = []
        self._steps: dict[str, list[int]] = {name: [] for name in self._names}
        self._values: dict[str, list[float]] = {name: [] for name in self._names}

    def _read_page(self) -> bool:
        # The last row known is read again: where it is gone or new, an attempt went on from an earlier checkpoint.
        page = client().metrics(self._job_id, names=self._names, after_step=max(self._last_step - 1, -1))
        rows = page.data
        if self._times:
            if not rows or (rows[0].step, rows[0].ts) != self._times[-1]:
                self._clear()
                return True
            rows = rows[1:]
        for row in rows:
            for name in row.values.keys() & self._steps.keys():
                value = float(row.values[name])
                self._steps[name].append(row.step)
                self._values[name].append(value if math.isfinite(value) else math.nan)
            self._times = [*self._times[-29:], (row.step, row.ts)]
            self._last_step = row.step
        return page.has_more

    def series(self, name: str) -> Series:
        """A metric's curve so far; empty where the job does not report it."""
        with self._lock:
            return Series.of(self._steps[name], self._values[name])

    @property
    def seconds_a_step(self) -> float | None:
        """Mean over the last thirty rows, by their times; None before there are two."""
        if len(self._times) < 2:
            return None
        (first, began), (last, ended) = self._times[0], self._times[-1]
        return (ended - began).total_seconds() / (last - first)


class HistogramHistory(_Reader):
    """One histogram of a job over its steps."""

    def __init__(self, job_id: UUID, name: str) -> None:
        super().__init__()
        self._job_id, self._name, self._last_step = job_id, name, -1
        self.columns = HistogramColumns()

    def _read_page(self) -> bool:
        page = client().histograms(self._job_id, self._name, after_step=max(self._last_step - 1, -1))
        rows = page.data
        if self._last_step >= 0:
            if not rows or rows[0].step != self._last_step:
                self._last_step, self.columns = -1, HistogramColumns()
                return True
            rows = rows[1:]
        for row in rows:
            self.columns.add(row.step, row.edges, row.counts)
            self._last_step = row.step
        return page.has_more


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
    """The end of a job's log."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__()
        self._job_id, self._next = job_id, 0
        self.text, self.cut = "", False

    def _read_page(self) -> bool:
        chunk = client().log(self._job_id, after=self._next)
        more = chunk.next > self._next
        text = self.text + chunk.text
        self.cut = self.cut or len(text) > LOG_TAIL
        self.text, self._next = text[-LOG_TAIL:], chunk.next
        return more


@st.cache_resource(max_entries=128, show_spinner=False)
def history(job_id: UUID, attempt: int, names: tuple[str, ...]) -> History:
    """The shared history of these metrics; a new attempt begins a new one, as it may take steps back."""
    return History(job_id, names)


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
