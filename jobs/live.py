"""Live streams: frames made from rows of the feed and the present content of the tables.

A row names the changes of a transaction; their content is read later. Content that has changed again is sent in its new
state. Deleted content is skipped; a later row reports the change. A client that has read every row has the same state
as REST.
"""

import codecs
import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Self
from uuid import UUID

from sqlalchemy.orm import Session

from calibrl.schemas import (
    Checkpoint,
    Ended,
    Event,
    Frame,
    Histogram,
    Job,
    LogPiece,
    MetricRow,
    Record,
    RecordBatch,
    Rewound,
    SampleSummary,
)
from jobs import models
from jobs.repository import checkpoints, feed, jobs, logs

MAX_PAGE_ROWS = 100  # maximum rows of the feed per page
MAX_PAGE_BYTES = 500_000  # estimated size at which a page is full
_STEP_BYTES = {"metrics": 1500, "histograms": 3000}  # per step
_CHARACTER_BYTES = 4  # bytes of the longest character


class StreamPosition(NamedTuple):
    """Position of a reader: after a row of the feed, or after the first `part` parts of it.

    `row` is (cursor) in the stream of a job and (xid, id) in the stream of all jobs.
    """

    row: tuple[int, ...]
    part: int | None = None

    @classmethod
    def parse(cls, text: str, numbers: int) -> Self:
        """Parse the id of a frame of a stream whose rows have `numbers` numbers. "0" is the beginning.

        Raises:
            ValueError: the text is not such an id.
        """
        if text == "0":
            return cls((0,) * numbers)
        match = re.fullmatch(rf"([0-9]{{1,18}}(?:-[0-9]{{1,18}}){{{numbers - 1}}})(?:\.([0-9]{{1,6}}))?", text)
        if match is None:
            raise ValueError(f"{text!r} is not the id of a frame of this stream")
        return cls(tuple(map(int, match[1].split("-"))), int(match[2]) if match[2] else None)

    def __str__(self) -> str:
        row = "-".join(map(str, self.row))
        return row if self.part is None else f"{row}.{self.part}"

    @property
    def next_row(self) -> tuple[int, ...]:
        """The first row that can have unread parts."""
        return self.row if self.part is not None else (*self.row[:-1], self.row[-1] + 1)

    def left_of(self, row: tuple[int, ...], parts: list[feed.Part]) -> Iterator[tuple["StreamPosition", feed.Part]]:
        """Yield the unread parts of a row, each with the position after it."""
        seen = self.part or 0 if row == self.row else 0
        return ((StreamPosition(row, number), part) for number, part in enumerate(parts[seen:], seen + 1))


@dataclass(frozen=True)
class ProjectFrame:
    """A frame with the project of its job, which decides who can read it."""

    frame: Frame
    project: str


@dataclass(frozen=True)
class StreamPage:
    """The next frames and the position after them. `ended`: no frame follows. `held`: further rows exist but cannot
    be sent yet."""

    position: StreamPosition
    shown: list[ProjectFrame] = field(default_factory=list)
    ended: bool = False
    held: bool = False


def first_job_page(job: models.Job) -> StreamPage:
    """Return the first page of the stream of a job: the job in its present state."""
    return _closed(job, StreamPosition((job.feed,)), [_status(job, StreamPosition((job.feed,)))])


def next_job_page(session: Session, job_id: UUID, position: StreamPosition) -> StreamPage:
    """Return the page after a position in the stream of a job; empty if there is nothing new."""
    job = jobs.find(session, job_id)
    if job is None:
        return StreamPage(position, ended=True)
    rows = feed.of_job(session, job_id, first=position.next_row[0], last=job.feed, limit=MAX_PAGE_ROWS)
    chosen = list(_bounded(rows))
    content = _Content(session, job_id, [part for row in chosen for part in row.parts])
    shown = [
        ProjectFrame(Frame(id=str(behind), event=part[0], data=data), job.project)
        for row in chosen
        for behind, part in position.left_of((row.cursor,), row.parts)
        if (data := content.of(part)) is not None
    ]
    if chosen:
        position = StreamPosition((chosen[-1].cursor,))
        shown.append(_status(job, position))
    return _closed(job, position, shown)


def first_page(session: Session) -> StreamPage:
    """Return the first page of the stream of all jobs: only the position."""
    position = StreamPosition(feed.newest(session))
    return StreamPage(position, [ProjectFrame(Frame(id=str(position), event=None, data=None), "")])


def changes_behind(session: Session, position: StreamPosition) -> int:
    """Return how many changes of all jobs, at most, came after a position in the stream of all jobs."""
    return feed.newest(session)[1] - position.row[1]


def next_page(session: Session, position: StreamPosition) -> StreamPage:
    """Return the page after a position in the stream of all jobs: events, and the state of each job."""
    xid, id = position.next_row
    rows = feed.of_all(session, first=(xid, id), limit=MAX_PAGE_ROWS)
    happened = _events(session, [(row.job_id, part) for row in rows for part in row.parts])
    known = {job.id: job for job in jobs.existing(session, {row.job_id for row in rows})}
    last = {row.job_id: row.id for row in rows}
    shown = []
    for row in rows:
        at = (row.xid, row.id)
        for behind, part in position.left_of(at, row.parts):
            if part[0] == "events" and (data := happened(row.job_id, part)):
                shown.append(ProjectFrame(Frame(id=str(behind), event="events", data=data), row.project))
        if last[row.job_id] == row.id and row.job_id in known:
            shown.append(_status(known[row.job_id], StreamPosition(at)))
    position = StreamPosition((rows[-1].xid, rows[-1].id)) if rows else position
    return StreamPage(position, shown, held=not rows and feed.are_held(session))


def _status(job: models.Job, position: StreamPosition) -> ProjectFrame:
    return ProjectFrame(Frame(id=str(position), event="status", data=Job.model_validate(job)), job.project)


def _closed(job: models.Job, position: StreamPosition, shown: list[ProjectFrame]) -> StreamPage:
    """Return the page, with an `end` frame if the job has ended and this is everything."""
    ended = job.status.final and position == StreamPosition((job.feed,))
    if ended:
        end = Ended(job_id=job.id, status=job.status)
        shown.append(ProjectFrame(Frame(id=str(position), event="end", data=end), job.project))
    return StreamPage(position, shown, ended=ended)


def _bounded(rows: list[models.Feed]) -> Iterator[models.Feed]:
    """Yield the first rows until their content reaches BYTES."""
    size = 0
    for row in rows:
        yield row
        for kind, *ends in row.parts:
            span = ends[1] - ends[0] + 1 if len(ends) > 1 else 0
            size += span if kind == "log" else span * _STEP_BYTES.get(kind, 0)
        if size > MAX_PAGE_BYTES:
            return


class _Content:
    """Present content of the parts of a job's feed. Each kind is read once, at first use."""

    def __init__(self, session: Session, job_id: UUID, parts: list[feed.Part]) -> None:
        self._session = session
        self._job_id = job_id
        self._parts = parts

    def of(self, part: feed.Part) -> Record | None:
        """Return the record of a part, or None if nothing of it is left."""
        match part:
            case ["rewound", int(to_step)]:
                return Rewound(job_id=self._job_id, to_step=to_step)
            case ["events", *_]:
                return self._events(self._job_id, part)
            case ["metrics", int(first), int(last)]:
                return self._several(self._metrics, MetricRow, first, last)
            case ["histograms", int(first), int(last), _]:
                return self._several(self._histograms, Histogram, first, last)
            case ["samples", int(first), int(last)]:
                return self._several(self._samples, SampleSummary, first, last, key=lambda sample: sample.id)
            case ["checkpoints"]:
                return self._checkpoints
            case ["log", int(start), int(end)]:
                return _log_piece(self._session, self._job_id, start, end)
        raise AssertionError(f"the feed has a part {part}")

    def _ranges(self, kind: str) -> list[feed.Range]:
        return [(part[1], part[2]) for part in self._parts if part[0] == kind]

    def _several(
        self,
        rows: Sequence[Any],
        record: type[Record],
        first: int,
        last: int,
        key: Callable[[Any], int] = lambda row: row.step,
    ) -> Record | None:
        part = rows[bisect_left(rows, first, key=key) : bisect_right(rows, last, key=key)]
        data = [record.model_validate(row) for row in part]
        return RecordBatch[Any](job_id=self._job_id, data=data) if data else None

    @cached_property
    def _events(self) -> Callable[[UUID, feed.Part], Record | None]:
        return _events(self._session, [(self._job_id, part) for part in self._parts])

    @cached_property
    def _metrics(self) -> list[models.StepMetrics]:
        return feed.metrics(self._session, self._job_id, self._ranges("metrics"))

    @cached_property
    def _histograms(self) -> list[models.Histogram]:
        names = {name for part in self._parts if part[0] == "histograms" for name in part[3]}
        return feed.histograms(self._session, self._job_id, names, self._ranges("histograms"))

    @cached_property
    def _samples(self) -> list[models.Sample]:
        return feed.samples(self._session, self._job_id, self._ranges("samples"))

    @cached_property
    def _checkpoints(self) -> Record:
        rows = checkpoints.of_job(self._session, self._job_id)
        return RecordBatch[Checkpoint](job_id=self._job_id, data=[Checkpoint.model_validate(row) for row in rows])


def _events(session: Session, parts: list[tuple[UUID, feed.Part]]) -> Callable[[UUID, feed.Part], Record | None]:
    """Read the events that the parts of jobs name. Return a function that finds those of one part."""
    ranges: dict[UUID, list[feed.Range]] = defaultdict(list)
    for job_id, part in parts:
        if part[0] == "events":
            ranges[job_id].append((part[1], part[2]))
    rows: dict[UUID, list[models.Event]] = defaultdict(list)
    for event in feed.events(session, ranges):
        rows[event.job_id].append(event)

    def find(job_id: UUID, part: feed.Part) -> Record | None:
        data = [Event.model_validate(event) for event in rows[job_id] if part[1] <= event.id <= part[2]]
        return RecordBatch[Event](job_id=job_id, data=data) if data else None

    return find


def _log_piece(session: Session, job_id: UUID, start: int, end: int) -> LogPiece | None:
    """Return the text between two bytes. A character at a border belongs to the piece in which it ends."""
    begin = max(0, start - _CHARACTER_BYTES + 1)
    data = logs.read(session, job_id, after=begin, limit=end - begin) if end else b""
    first, last = start - begin, len(data)
    first -= _unfinished(data[:first])
    last -= _unfinished(data)
    if first >= last and end:
        return None
    text = data[first:last].decode(errors="replace")
    return LogPiece(job_id=job_id, start=begin + first, next=begin + last, text=text)


def _unfinished(data: bytes) -> int:
    """Return the number of bytes at the end that begin an incomplete character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data[1 - _CHARACTER_BYTES :])
    return len(decoder.getstate()[0])
