"""The hub of the live streams: one listening connection, and one read for all streams at the same position.

A stream pulls: it holds only the page that it is sending. A slow client therefore costs no memory, and a client that
does not read is disconnected. No stream holds a database session; a few threads read the pages.
"""

import asyncio
import signal
import threading
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType, TracebackType
from typing import Self
from uuid import UUID

import structlog
from fastapi.sse import format_sse_event
from pydantic_core import to_json
from sqlalchemy.orm import Session
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from api.errors import AWAY
from api.stream_permissions import StreamPermissions
from calibrl.schemas import Frame
from jobs import db, live
from jobs.access.callers import Caller
from jobs.db import session_scope
from jobs.errors import Busy
from jobs.live import StreamPage, StreamPosition
from jobs.models import Job

READERS = 4  # threads, and so connections, that read for all streams together
MOST_STREAMS, MOST_OF_USER = 2000, 200  # of one process
KEEP_ALIVE_SECONDS = 15.0
SEND_SECONDS = 20.0  # limit for sending one page; a slower client is disconnected
RETRY_SECONDS = 1.0  # between two attempts while the database is unreachable
HELD_SECONDS = 0.1  # between two reads while a running transaction holds rows back
PACE_SECONDS = 0.05  # between two reads for the stream of all jobs: one page then covers many transactions
RECENT_BYTES = 1_000_000  # of pages that a topic keeps for streams that are slightly behind
PING = b": still here\n\n"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

Projects = frozenset[str] | None  # projects whose jobs a client can see; None: all
log = structlog.get_logger()


@dataclass(frozen=True)
class Encoded:
    """A page in the format of the stream: the bytes of each frame, with the project of its job."""

    position: StreamPosition
    frames: tuple[tuple[str, bytes], ...]
    ended: bool
    held: bool

    @classmethod
    def of(cls, page: StreamPage) -> Self:
        frames = tuple((shown.project, encode(shown.frame)) for shown in page.shown)
        return cls(page.position, frames, page.ended, page.held)

    def visible_to(self, projects: Projects) -> bytes:
        """Return the frames that a client can see; a frame without a project is visible to all."""
        mine = (text for project, text in self.frames if projects is None or not project or project in projects)
        return b"".join(mine)

    @property
    def size(self) -> int:
        return sum(len(text) for _, text in self.frames)


def encode(frame: Frame) -> bytes:
    """Return a frame as a server-sent event."""
    data = None if frame.event is None else to_json(frame.data, inf_nan_mode="null").decode()
    return format_sse_event(event=frame.event, id=frame.id, data_str=data)


class Topic:
    """State shared by the streams of one job, or of all jobs: reads in progress, and the pages read last."""

    def __init__(
        self, read: Callable[[StreamPosition], StreamPage], pool: ThreadPoolExecutor, pace: float = 0.0
    ) -> None:
        self.streams = 0
        self._read = read
        self._pool = pool
        self._pace = pace
        self._read_at = -pace
        self._version = 0
        self._woken = asyncio.Event()
        self._reading: dict[tuple[StreamPosition, int], asyncio.Task[Encoded]] = {}
        self._recent: OrderedDict[StreamPosition, Encoded] = OrderedDict()

    def wake(self) -> None:
        """Note a change that is newer than the read in progress."""
        self._version += 1
        self._woken.set()
        self._woken = asyncio.Event()

    def close(self) -> None:
        """Cancel the reads in progress."""
        for task in self._reading.values():
            task.cancel()

    async def follow(self, position: StreamPosition) -> Encoded | None:
        """Return the page after a position; None if there is none yet but something has happened since the request."""
        if position in self._recent:
            return self._recent[position]
        woken, key = self._woken, (position, self._version)
        if key not in self._reading:
            self._reading[key] = asyncio.create_task(self._fetch(key))
        page = await asyncio.shield(self._reading[key])
        if page.position != position or page.ended:
            return page
        try:
            async with asyncio.timeout(HELD_SECONDS if page.held else None):
                await woken.wait()
        except TimeoutError:
            if woken is self._woken:  # the first of the waiting streams
                self.wake()
        return None

    async def _fetch(self, key: tuple[StreamPosition, int]) -> Encoded:
        loop = asyncio.get_running_loop()
        position = key[0]
        try:
            await asyncio.sleep(self._read_at + self._pace - loop.time())
            self._read_at = loop.time()
            page = await loop.run_in_executor(self._pool, partial(_read_encoded, self._read, position))
        except AWAY as error:
            log.warning("streams wait for the database", error=str(error).partition("\n")[0])
            await asyncio.sleep(RETRY_SECONDS)
            page = Encoded(position, (), ended=False, held=True)
        finally:
            del self._reading[key]
        if page.position != position and not page.ended:  # an ended job can be retried
            self._keep(position, page)
        return page

    def _keep(self, position: StreamPosition, page: Encoded) -> None:
        self._recent[position] = page
        while sum(each.size for each in self._recent.values()) > RECENT_BYTES:
            self._recent.popitem(last=False)


def _read_encoded(read: Callable[[StreamPosition], StreamPage], position: StreamPosition) -> Encoded:
    return Encoded.of(read(position))


class Hub:
    """All streams of this process. `streams` is their number."""

    def __init__(self) -> None:
        self.streams = 0
        self._of_users: Counter[str] = Counter()
        self._closed = False
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="live")
        self._permissions = StreamPermissions(self._pool)
        self._topics: dict[str | None, Topic] = {}  # by job id, as in notifications; None: all jobs

    async def __aenter__(self) -> Self:
        self._listener = asyncio.create_task(self._listen())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._listener.cancel()
        await asyncio.wait([self._listener])
        self._pool.shutdown(wait=False, cancel_futures=True)

    def check_room(self, user: str) -> None:
        """Check that this process can open one more stream.

        Raises:
            Busy: the process or the user has the maximum number of streams.
        """
        if self._of_users[user] >= MOST_OF_USER:
            raise Busy(f"You have {MOST_OF_USER} streams of this process, the maximum of a user; close one.")
        if self.streams >= MOST_STREAMS:
            raise Busy(f"This process has {self.streams} streams, the maximum; close one, or try again later.")

    def close(self) -> None:
        """End all streams immediately; their clients reconnect with the id of the last frame that they received."""
        self._closed = True
        self._wake_all()

    async def read(self, query: Callable[[Session], StreamPage]) -> Encoded:
        """Read a page in one of the hub's threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, partial(_in_session, query))

    async def stream(
        self, job: Job | None, start: StreamPosition | Encoded, *, seconds: float, caller: Caller
    ) -> AsyncGenerator[bytes, None]:
        """Yield server-sent events of a job (None: of all jobs), from a position or a page on.

        The stream ends after `seconds`, or when the caller loses access.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        async with self._topic(job.id if job else None, caller.user) as topic:
            page: Encoded | None = start if isinstance(start, Encoded) else None
            position = start.position if isinstance(start, Encoded) else start
            if page is None:
                yield PING  # confirms the connection at once, since the first data can take long
            while not self._closed:
                now = await self._permissions.now(caller)
                if now is None or (job and not now.sees(job.project)):
                    return  # the client reconnects, and that request gets the reason
                if page is not None:
                    if data := page.visible_to(now.projects):
                        yield data
                    if page.ended:
                        return
                    position = page.position
                left = until - clock()
                if left <= 0:
                    return
                try:
                    async with asyncio.timeout(min(KEEP_ALIVE_SECONDS, left)):
                        page = await _next(topic, position, lambda: self._closed)
                except TimeoutError:
                    page = None
                    yield PING

    @asynccontextmanager
    async def _topic(self, job_id: UUID | None, user: str) -> AsyncIterator[Topic]:
        key = str(job_id) if job_id else None
        topic = self._topics.get(key)
        if topic is None:
            topic = self._topics[key] = Topic(partial(_page_of, job_id), self._pool, 0.0 if job_id else PACE_SECONDS)
        topic.streams += 1
        self.streams += 1
        self._of_users[user] += 1
        try:
            yield topic
        finally:
            self.streams -= 1
            topic.streams -= 1
            self._of_users[user] -= 1
            self._of_users += Counter()  # removes users without streams
            if not topic.streams:
                topic.close()
                del self._topics[key]

    async def _listen(self) -> None:
        """Wake the streams concerned by a notification until cancelled; without a connection, wake all periodically."""
        wait = 0.1
        while True:
            try:
                async with aclosing(db.notifications()) as payloads:
                    async for payload in payloads:
                        wait = 0.1
                        if payload is None:
                            self._wake_all()
                        else:
                            self._wake(payload)
            except Exception as error:  # the task outlives every outage
                log.warning("streams can't listen", error=str(error).partition("\n")[0])
            await asyncio.sleep(wait)
            wait = min(2 * wait, 2.0)
            self._wake_all()

    def _wake(self, job_id: str) -> None:
        for topic in (self._topics.get(job_id), self._topics.get(None)):
            if topic is not None:
                topic.wake()

    def _wake_all(self) -> None:
        for topic in self._topics.values():
            topic.wake()


async def _next(topic: Topic, position: StreamPosition, closed: Callable[[], bool]) -> Encoded | None:
    page = None
    while page is None and not closed():
        page = await topic.follow(position)
    return page


def _in_session(query: Callable[[Session], StreamPage]) -> Encoded:
    with session_scope() as session:
        return Encoded.of(query(session))


def _page_of(job_id: UUID | None, position: StreamPosition) -> StreamPage:
    with session_scope() as session:
        return live.next_job_page(session, job_id, position) if job_id else live.next_page(session, position)


class EventStream(StreamingResponse):
    """Server-sent events from a generator, which is closed with the connection.

    A client that does not read is disconnected.
    """

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(events, headers=HEADERS, media_type="text/event-stream")
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)

        async with aclosing(self._events):
            try:
                await super().__call__(scope, receive, send_in_time)
            except TimeoutError:
                log.info("stream cut off: its client does not read", path=scope["path"])


@contextmanager
def on_stop_signal(call: Callable[[], None]) -> Iterator[None]:
    """Call a function when this process gets a stop signal: uvicorn waits for open answers without notifying them.

    Works only in the main thread, which receives signals; elsewhere the caller of the server must bound its wait.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(call)
        known = before[signal.Signals(number)]
        if callable(known):
            known(number, frame)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, known in before.items():
            signal.signal(number, known)
