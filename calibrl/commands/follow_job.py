"""A job followed to its end, for `watch` and `logs -f`: by its live stream or, where there is none, by asking."""

import time
from collections.abc import Iterator
from uuid import UUID

from calibrl.client import CalibrlError, Client, Live
from calibrl.schemas import Event, Job, LogPiece, MetricRow, RecordBatch, Rewound
from calibrl.views import terminal

POLL_SECONDS = 1.0
HISTORY = 400  # steps of metrics that are kept
NOT_FOUND = 404  # HTTP

Rows = dict[int, dict[str, float | str]]


def follow(client: Client, id: UUID) -> Iterator[tuple[Job, Rows, list[Event]]]:
    """A job, its latest metrics by step and what has happened since, time and again until it has ended."""
    stream = _stream(client, id)
    if stream is None:
        yield from _follow_by_polling(client, id)
        return
    job: Job = client.job(id)
    rows, happened = dict[int, dict[str, float | str]](), history(client, id)
    rows = _latest(client, job, rows)
    yield job, rows, happened
    seen = happened[-1].id if happened else 0
    for live in stream:
        happened = []
        match live.data:
            case Job():
                job = live.data
            case Rewound(to_step=to_step):
                rows = {step: row for step, row in rows.items() if step <= to_step}
            case RecordBatch(data=[MetricRow(), *_] as found):
                rows |= {row.step: _watched(row) for row in found}
            case RecordBatch(data=[Event(), *_] as found):
                happened = [event for event in found if event.id > seen]
                seen = max([seen, *(event.id for event in found)])
        rows = {step: row for step, row in rows.items() if step > max(rows) - HISTORY}
        if live.event in ("status", "end") or happened:
            yield job, rows, happened


def log_text(client: Client, id: UUID) -> Iterator[str]:
    """A job's log, as it is written, until the job has ended."""
    stream = _stream(client, id)
    log = Log(client, id)
    yield from log.rest()
    if stream is None:
        while not client.job(id).status.final:
            yield from log.rest()
            time.sleep(POLL_SECONDS)
    else:
        for live in stream:
            if isinstance(live.data, LogPiece):
                yield from log.piece(live.data)
    yield from log.rest()  # what it wrote last


class Log:
    """A job's log, read from its beginning on."""

    def __init__(self, client: Client, id: UUID) -> None:
        self._client = client
        self._id = id
        self._place = 0  # bytes read so far

    def rest(self) -> Iterator[str]:
        """What has not been read yet."""
        while (chunk := self._client.log(self._id, after=self._place)).next > self._place:
            self._place = chunk.next
            yield chunk.text

    def piece(self, piece: LogPiece) -> Iterator[str]:
        """What of a piece has not been read yet."""
        if piece.start == self._place:
            self._place = piece.next
            yield piece.text
        elif piece.next > self._place:  # it was asked for a little further than where the stream began
            yield from self.rest()


def history(client: Client, id: UUID, after: int = 0) -> list[Event]:
    """All that has happened to a job since the event with id `after`."""
    events: list[Event] = []
    more = True
    while more:
        page = client.events(id, after=events[-1].id if events else after, limit=1000)
        events += page.data
        more = page.has_more
    return events


def _stream(client: Client, id: UUID) -> Iterator[Live] | None:
    """The job's stream behind its first frame, so that what is asked for from now on misses nothing of it; None where
    none comes: the service has no streams, or something in between keeps answers until they are whole."""
    stream = client.stream(id)
    try:
        next(stream)
    except CalibrlError as error:
        if error.status not in (None, NOT_FOUND):
            raise
        return None
    return stream


def _follow_by_polling(client: Client, id: UUID) -> Iterator[tuple[Job, Rows, list[Event]]]:
    rows: Rows = {}
    seen = 0
    while True:
        job = client.job(id)
        rows = _latest(client, job, rows)
        happened = history(client, id, after=seen)
        seen = happened[-1].id if happened else seen
        yield job, rows, happened
        if job.status.final:
            return
        time.sleep(POLL_SECONDS)


def _latest(client: Client, job: Job, known: Rows) -> Rows:
    """The job's latest metrics, of which some are known."""
    first = job.step - HISTORY
    rows = {step: row for step, row in known.items() if first < step <= job.step}  # one that resumes steps back
    page = client.metrics(job.id, names=list(terminal.WATCHED), after_step=max([first, -1, *rows]))
    return rows | {row.step: row.values for row in page.data}


def _watched(row: MetricRow) -> dict[str, float | str]:
    return {name: value for name, value in row.values.items() if name in terminal.WATCHED}
