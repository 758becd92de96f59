"""Limits of requests: rates, and requests in progress per client."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
from anyio import CapacityLimiter, to_thread

from api import limits, tables
from api.limits import Places, RateLimit, Remembered
from tests.support.waiting import LIMIT_SECONDS


def test_a_request_that_is_given_back_does_not_count() -> None:
    limit = RateLimit(1, 2, clock=lambda: 0.0)
    assert limit.wait("a") == 0
    limit.give_back("a")
    assert [limit.wait("a") for _ in range(3)] == [0, 0, 1]
    limit.give_back("unknown")
    assert limit.wait("unknown") == 0


def test_a_client_waits_for_its_own_requests_only() -> None:
    async def scene() -> list[bool]:
        places = Places(2, patience=0.01)
        async with places.one("a"), places.one("a"), places.one("a") as third, places.one("b") as other:
            return [third is not None, other is not None]

    assert asyncio.run(scene()) == [False, True]


def test_a_place_can_be_freed_before_the_end_and_only_once() -> None:
    async def scene() -> list[bool]:
        places = Places(1, patience=0.01)
        async with places.one("a") as free:
            assert free is not None
            free()
            free()
            async with places.one("a") as second, places.one("a") as third:
                taken = [second is not None, third is not None]
        async with places.one("a") as later:
            return [*taken, later is not None]

    assert asyncio.run(scene()) == [True, False, True]


def test_answers_that_wait_for_their_turn_occupy_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def pieces() -> Iterator[bytes]:
        gate.wait(60)
        yield b"a"
        yield b"b"

    async def scene() -> tuple[int, list[list[bytes]]]:
        monkeypatch.setattr(tables, "READING", CapacityLimiter(3))

        async def received() -> list[bytes]:
            sent = tables.attachment("a.csv", "text/csv", pieces()).body_iterator
            return [piece async for piece in sent if isinstance(piece, bytes)]

        answers = [asyncio.create_task(received()) for _ in range(60)]
        async with asyncio.timeout(LIMIT_SECONDS):
            while tables.READING.statistics().tasks_waiting < 57:
                await asyncio.sleep(0)
        others = await asyncio.gather(*(to_thread.run_sync(int, limiter=CapacityLimiter(37)) for _ in range(37)))
        gate.set()
        return len(others), [await answer for answer in answers]

    free, answers = asyncio.run(scene())
    assert (free, answers) == (37, [[b"a", b"b"]] * 60)


def test_only_the_most_recent_items_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REMEMBERED", 2)
    items = Remembered()
    for item in (b"a", b"b", b"a", b"c"):
        items.add(item)
    assert [item in items for item in (b"a", b"b", b"c")] == [True, False, True]
