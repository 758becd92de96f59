"""Live streams of jobs, over server-sent events."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import ValidationError

from calibrl.client.connection import RETRIED, Connection, JobId, checked, job_path
from calibrl.client.errors import CalibrlError, Unreachable
from calibrl.schemas import LIVE, Ended, Job

SILENCE_SECONDS = 45.0  # three keep-alive intervals of the service
PATIENCE_SECONDS = 60.0
OPENING_SECONDS = 10.0  # the service sends the first frame immediately
FIRST_WAIT, LONGEST_WAIT = 0.1, 2.0  # seconds between two attempts
LONGEST_STREAM = 86_400.0


@dataclass(frozen=True)
class Live:
    """A frame of a live stream. `calibrl.schemas.LIVE` has the type of `data` per `event`.

    A stream with `after=id` continues after this frame.
    """

    event: str
    data: Any
    id: str | None


class StreamRequests(Connection):
    """Live streams of jobs, over server-sent events."""

    def stream(self, id: JobId, *, after: str | None = None, patience: float = PATIENCE_SECONDS) -> Iterator[Live]:
        """Yield the events of a job live, up to its end (`event` "end").

        It begins with the current job (`event` "status"); with `after`, after the frame with that id; with "0", at
        the first event. A broken connection is opened again, and the stream continues without a gap.

        Raises:
            CalibrlError: the service has sent nothing for `patience` seconds.
        """
        for live in self._follow(job_path(id, "stream"), after, patience):
            if live is not None:
                yield live

    def stream_all(self, *, after: str | None = None, patience: float = PATIENCE_SECONDS) -> Iterator[Live]:
        """Yield status and events of all jobs live, without end."""
        for live in self._follow("/v1/stream", after, patience):
            if live is not None:
                yield live

    def wait(self, id: JobId, timeout: float | None = None) -> Job:
        """Return the job when it has ended.

        Raises:
            CalibrlError: it has not ended after `timeout` seconds.
        """
        until = None if timeout is None else time.monotonic() + timeout
        for live in self._follow(job_path(id, "stream"), None, PATIENCE_SECONDS, until):
            if live is not None and isinstance(live.data, Ended):
                return self._get(Job, job_path(id))
        raise CalibrlError(f"job {id} has not ended within {timeout} s")

    def _follow(
        self, path: str, after: str | None, patience: float, until: float | None = None
    ) -> Iterator[Live | None]:
        """Yield frames up to an `end`, with new connections where needed; None for a keep-alive comment."""
        wait, answered, opened = FIRST_WAIT, time.monotonic(), False
        while until is None or time.monotonic() < until:
            why = "the stream ended"
            try:
                for live in self._frames(path, after, until, SILENCE_SECONDS if opened else OPENING_SECONDS):
                    wait, answered, opened = FIRST_WAIT, time.monotonic(), True
                    if live is not None:
                        after = live.id or after
                    if live is None or live.event:
                        yield live
                    if live is not None and isinstance(live.data, Ended):
                        return
            except Unreachable as error:
                why = str(error)
            limit = patience if opened else min(patience, OPENING_SECONDS)
            if time.monotonic() - answered >= limit:
                raise CalibrlError(f"{self.url} has sent nothing for {limit:g} s: {why}")
            time.sleep(wait if until is None else max(0.0, min(wait, until - time.monotonic())))
            wait = min(2 * wait, LONGEST_WAIT)

    def _frames(self, path: str, after: str | None, until: float | None, silence: float) -> Iterator[Live | None]:
        """Yield the frames of one connection.

        Raises:
            Unreachable: another attempt can succeed.
        """
        left = LONGEST_STREAM if until is None else min(LONGEST_STREAM, max(0.1, until - time.monotonic()))
        headers = {"Accept": "text/event-stream"} | ({} if after is None else {"Last-Event-ID": after})
        timeout = httpx.Timeout(silence, connect=3.0)
        params = {"max_seconds": str(math.ceil(left * 10) / 10)}
        try:
            with self._http.stream("GET", path, params=params, headers=headers, timeout=timeout) as response:
                if response.status_code in RETRIED:
                    raise Unreachable(f"{path} answered {response.status_code}")
                if not response.is_success:
                    response.read()
                    checked(response)
                for text in _messages(response.iter_bytes()):
                    yield self._live(text)
        except httpx.TransportError as error:
            raise Unreachable(f"the stream {path} was interrupted: {error}") from error

    def _live(self, text: bytes) -> Live | None:
        """Parse a message into a record; None if it has no data."""
        fields = dict(line.split(b": ", 1) for line in text.split(b"\n") if b": " in line and line[:1] != b":")
        event, id = fields.get(b"event", b"").decode(), fields.get(b"id")
        record = LIVE.get(event)
        if record is None and id is None:
            return None
        try:
            data = record.model_validate_json(fields.get(b"data", b"")) if record else None
        except ValidationError as error:
            raise CalibrlError(f"{self.url} sent an invalid frame {event!r}; check its version") from error
        return Live(event if record else "", data, id.decode() if id else None)


def _messages(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield server-sent events from received pieces. A truncated last event is dropped."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n\n")
        yield from whole
