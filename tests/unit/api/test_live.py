"""Shared reads of streams: one read per position, no lost wake-up, bounded memory; and the form of a frame."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from uuid import UUID

import pytest

from api import live as api_live
from api.live import Encoded, Hub, Topic, encode
from calibrl.schemas import Frame, Rewound
from jobs.errors import Busy
from jobs.live import ProjectFrame, StreamPage, StreamPosition
from tests.support.waiting import LIMIT_SECONDS

T = TypeVar("T")
JOB = UUID(int=1)


class Feed:
    """A feed of numbers, read as `jobs.live` reads one. With the gate shut, a read waits once it has looked."""

    def __init__(self, newest: int = 0) -> None:
        self.newest = newest
        self.held = False
        self.reads: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, place: StreamPosition) -> StreamPage:
        (at,) = place.row
        newest, held = self.newest, self.held
        self.reads.append(at)
        assert self.gate.wait(LIMIT_SECONDS)
        frames = [
            Frame(id=str(n), event="rewound", data=Rewound(job_id=JOB, to_step=n)) for n in range(at + 1, newest + 1)
        ]
        return StreamPage(StreamPosition((newest,)), [ProjectFrame(frame, "p") for frame in frames], held=held)


def with_topic(feed: Feed, act: Callable[[Topic], Awaitable[T]]) -> T:
    with ThreadPoolExecutor(4) as pool:

        async def run() -> T:
            async with asyncio.timeout(10):
                return await act(Topic(feed, pool))

        return asyncio.run(run())


async def looked(feed: Feed, times: int) -> None:
    while len(feed.reads) < times:
        await asyncio.sleep(0.001)


def test_a_frame_on_the_wire() -> None:
    frame = Frame(id="7.1", event="rewound", data=Rewound(job_id=JOB, to_step=3))
    assert encode(frame) == b'event: rewound\ndata: {"job_id":"%s","to_step":3}\nid: 7.1\n\n' % str(JOB).encode()
    assert encode(Frame(id="9-1", event=None, data=None)) == b"id: 9-1\n\n"


def test_readers_at_one_position_share_a_read_and_get_the_next_change() -> None:
    feed = Feed()

    async def act(topic: Topic) -> None:
        waiting = [asyncio.create_task(topic.follow(StreamPosition((0,)))) for _ in range(100)]
        await looked(feed, 1)
        feed.newest = 2
        await asyncio.sleep(0.05)
        topic.wake()
        assert await asyncio.gather(*waiting) == [None] * 100  # look again
        pages = await asyncio.gather(*(topic.follow(StreamPosition((0,))) for _ in range(100)))
        assert len({id(page) for page in pages}) == 1 and pages[0] and pages[0].position == StreamPosition((2,))

    with_topic(feed, act)
    assert feed.reads == [0, 0]


def test_a_change_while_others_read_is_not_missed() -> None:
    """A reader that arrives after the wake-up must not get rows that were read before the change."""
    feed = Feed()

    async def act(topic: Topic) -> Encoded | None:
        feed.gate.clear()
        early = asyncio.create_task(topic.follow(StreamPosition((0,))))
        await looked(feed, 1)
        feed.newest = 1
        topic.wake()
        late = asyncio.create_task(topic.follow(StreamPosition((0,))))
        await looked(feed, 2)
        feed.gate.set()
        assert await early is None
        return await late

    page = with_topic(feed, act)
    assert page is not None and page.position == StreamPosition((1,))


def test_held_back_rows_are_read_again_without_a_wake_up() -> None:
    feed = Feed()
    feed.held = True

    async def act(topic: Topic) -> None:
        await asyncio.gather(*(topic.follow(StreamPosition((0,))) for _ in range(50)))
        feed.newest = 1
        assert (await topic.follow(StreamPosition((0,)))) is not None

    with_topic(feed, act)
    assert len(feed.reads) == 2


def test_pages_are_kept_for_later_readers_within_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed()

    async def act(topic: Topic) -> None:
        for feed.newest in range(1, 100):
            await topic.follow(StreamPosition((feed.newest - 1,)))
        before = len(feed.reads)
        await topic.follow(StreamPosition((98,)))
        assert len(feed.reads) == before
        await topic.follow(StreamPosition((0,)))
        assert len(feed.reads) == before + 1

    monkeypatch.setattr(api_live, "RECENT_BYTES", 500)
    with_topic(feed, act)


def test_a_read_that_fails_while_the_database_is_away_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_live, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(api_live, "AWAY", (ConnectionError,))
    feed = Feed(1)
    fails = iter([True, True, False])

    class Away(Feed):
        def __call__(self, place: StreamPosition) -> StreamPage:
            if next(fails):
                raise ConnectionError("away")
            return feed(place)

    async def act(topic: Topic) -> Encoded | None:
        assert [await topic.follow(StreamPosition((0,))) for _ in range(2)] == [None, None]
        return await topic.follow(StreamPosition((0,)))

    page = with_topic(Away(), act)
    assert page is not None and page.position == StreamPosition((1,))


def test_the_number_of_streams_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_live, "MOST_STREAMS", 1)
    hub = Hub()
    hub.check_room("ann")
    hub.streams = 1
    with pytest.raises(Busy):
        hub.check_room("ann")


def test_the_streams_of_a_user_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_live, "MOST_OF_USER", 2)

    async def scene() -> list[bool]:
        hub = Hub()
        async with hub._topic(None, "ann"), hub._topic(JOB, "ann"):
            full = [refuses(hub, "ann"), refuses(hub, "bob")]
        return [*full, refuses(hub, "ann")]

    assert asyncio.run(scene()) == [True, False, False]


def refuses(hub: Hub, user: str) -> bool:
    try:
        hub.check_room(user)
    except Busy:
        return True
    return False
