"""Follows a job to its end: for `watch` and `logs -f` by its live stream, or by polling if there is no stream."""

import time
from collections.abc import Iterator
from uuid import UUID

import typer
from rich.live import Live as LiveScreen

from calibrl.client import CalibrlError, Client, Live
from calibrl.client import Job as SubmittedJob
from calibrl.commands.arguments import console
from calibrl.schemas import Event, Job, JobStatus, LogPiece, MetricRow, RecordBatch, Rewound
from calibrl.views import terminal

POLL_SECONDS = 1.0
HISTORY = 400  # steps of metrics in memory
NOT_FOUND = 404  # HTTP

Rows = dict[int, dict[str, float | str]]


def wait_for_success(job: SubmittedJob, name: str) -> SubmittedJob:
    """Print the id of a job and wait for its end. Return it, or end the command if it has not succeeded. `name`: what
    the job is, in words.
    """
    typer.echo(f"job {job.id}", err=True)
    ended = job.wait()
    if ended.status is not JobStatus.SUCCEEDED:
        typer.echo(f"The {name} is {ended.status}: {ended.message or 'see its log'}", err=True)
        raise typer.Exit(1)
    return ended


def watch(client: Client, id: UUID) -> Job:
    """Show the progress and metrics of a job until it ends: live in a terminal, else a line per tenth of its steps.
    Return the ended job.
    """
    screen = console()
    shown = None
    with LiveScreen(console=screen, auto_refresh=False) as live:
        for now, rows, happened in follow(client, id):
            for warning in filter(None, map(terminal.warning, happened)):
                screen.print(warning, soft_wrap=True)  # stays above what is drawn live
            if screen.is_terminal:
                live.update(terminal.live_view(now, rows), refresh=True)
            elif shown != (shown := (now.status, 10 * now.step // (now.steps_total or 1))):
                typer.echo(terminal.headline(now))
    return now


def follow(client: Client, id: UUID) -> Iterator[tuple[Job, Rows, list[Event]]]:
    """Yield a job, its latest metrics by step and its new events, repeatedly until the job has ended."""
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


def last_state(client: Client, id: UUID) -> Job:
    """Wait for the end of a job, and return the ended job."""
    for ended, _, _ in follow(client, id):  # noqa: B007 - the last one is returned
        pass
    return ended


class LogReader:
    """Reader of the log of a job, from its first byte."""

    def __init__(self, client: Client, id: UUID) -> None:
        self._client = client
        self._id = id
        self._place = 0  # bytes read so far

    def rest(self) -> Iterator[str]:
        """Yield the text that was not read yet."""
        while (chunk := self._client.log(self._id, after=self._place)).next > self._place:
            self._place = chunk.next
            yield chunk.text

    def last_lines(self, count: int) -> Iterator[str]:
        """Yield the last lines that were not read yet."""
        text = "".join(self.rest())
        lines = text.splitlines(keepends=True)
        yield "".join(lines[-count:] if count else ())

    def follow(self) -> Iterator[str]:
        """Yield the rest of the log as it is written, until the job has ended."""
        stream = _stream(self._client, self._id)
        yield from self.rest()
        if stream is None:
            while not self._client.job(self._id).status.final:
                yield from self.rest()
                time.sleep(POLL_SECONDS)
        else:
            for live in stream:
                if isinstance(live.data, LogPiece):
                    yield from self.piece(live.data)
        yield from self.rest()  # the last lines

    def piece(self, piece: LogPiece) -> Iterator[str]:
        """Yield the part of a piece that was not read yet."""
        if piece.start == self._place:
            self._place = piece.next
            yield piece.text
        elif piece.next > self._place:  # the log was read beyond the beginning of the stream
            yield from self.rest()


def history(client: Client, id: UUID, after: int = 0) -> list[Event]:
    """Return all events of a job after the event with id `after`."""
    events: list[Event] = []
    more = True
    while more:
        page = client.events(id, after=events[-1].id if events else after, limit=1000)
        events += page.data
        more = page.has_more
    return events


def _stream(client: Client, id: UUID) -> Iterator[Live] | None:
    """Return the stream of a job after its first frame. A request made after that frame misses no change.

    None if no stream comes: the service has none, or a proxy holds answers back until they are complete.
    """
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


def _latest(client: Client, job: Job, earlier: Rows) -> Rows:
    """Return the latest metrics of a job, by step; `earlier` has those of earlier calls."""
    first = job.step - HISTORY
    # A resumed job goes back some steps.
    rows = {step: row for step, row in earlier.items() if first < step <= job.step}
    page = client.metrics(job.id, names=list(terminal.WATCHED), after_step=max([first, -1, *rows]))
    return rows | {row.step: row.values for row in page.data}


def _watched(row: MetricRow) -> dict[str, float | str]:
    return {name: value for name, value in row.values.items() if name in terminal.WATCHED}
