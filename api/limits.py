"""Rate limits per user (or per address without a key), and limits on concurrent requests."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from threading import BoundedSemaphore

from jobs.errors import Busy

REMEMBERED = 10_000  # most recent callers; a forgotten caller starts with a full allowance


class ConcurrencyLimit:
    """A limit on the number of requests that run one slow operation at the same time."""

    def __init__(self, at_once: int) -> None:
        self._turns = BoundedSemaphore(at_once)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold one place during the block.

        Raises:
            Busy: all places are taken.
        """
        if not self._turns.acquire(blocking=False):
            raise Busy("The service already runs the maximum number of these requests; try again in a minute.")
        try:
            yield
        finally:
            self._turns.release()


class RateLimit:
    """A token bucket per client: it allows `burst` requests at once, then `per_second`."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._burst, self._clock = per_second, float(burst), clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens and the time of their count

    def wait(self, client: str) -> float:
        """Take a token and return 0, or return the seconds until a token is available."""
        now = self._clock()
        tokens, at = self._buckets.pop(client, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._per_second)
        taken = tokens >= 1
        self._buckets[client] = (tokens - 1 if taken else tokens, now)
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (1 - tokens) / self._per_second

    def headers(self, client: str) -> dict[str, str]:
        """Return the limit and what is left of it, as headers of the IETF's draft `RateLimit header fields for HTTP`:
        q and r are requests, w and t seconds."""
        tokens, _ = self._buckets.get(client, (self._burst, 0.0))
        whole = math.ceil(self._burst / self._per_second)
        again = math.ceil((1 - tokens % 1) / self._per_second)
        return {
            "RateLimit-Policy": f'"user";q={self._burst:.0f};w={whole}',
            "RateLimit": f'"user";r={int(tokens)};t={again}',
        }

    def give_back(self, client: str) -> None:
        """Undo a `wait` that returned 0."""
        if client in self._buckets:
            tokens, at = self._buckets[client]
            self._buckets[client] = min(self._burst, tokens + 1), at


class Places:
    """A limit on the requests of one client that are in progress at the same time. Use it in one event loop."""

    def __init__(self, at_once: int, patience: float) -> None:
        """`patience`: seconds that a request waits for a place."""
        self._at_once, self._patience = at_once, patience
        self._clients: dict[str, tuple[asyncio.Semaphore, list[None]]] = {}  # with an item per request that uses it

    @asynccontextmanager
    async def one(self, client: str) -> AsyncIterator[Callable[[], None] | None]:
        """Yield a function that frees the place before the end of the block, or None if no place became free."""
        places, users = self._clients.setdefault(client, (asyncio.Semaphore(self._at_once), []))
        users.append(None)
        free: Callable[[], None] | None = None
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(places.acquire(), self._patience)
                free = _once(places.release)
            yield free
        finally:
            if free is not None:
                free()
            users.pop()
            if not users:
                del self._clients[client]


def _once(action: Callable[[], None]) -> Callable[[], None]:
    left = [action]
    return lambda: left.pop()() if left else None


class Remembered:
    """A set of the most recent items, at most REMEMBERED."""

    def __init__(self) -> None:
        self._items: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, item: bytes) -> bool:
        return item in self._items

    def discard(self, item: bytes) -> None:
        """Forget an item."""
        self._items.pop(item, None)

    def add(self, item: bytes) -> None:
        """Add an item as the most recent one."""
        self._items[item] = None
        self._items.move_to_end(item)
        if len(self._items) > REMEMBERED:
            self._items.popitem(last=False)
