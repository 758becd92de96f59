"""Rate limits per API key (or per address without a key), and limits on concurrent slow requests."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
            "RateLimit-Policy": f'"key";q={self._burst:.0f};w={whole}',
            "RateLimit": f'"key";r={int(tokens)};t={again}',
        }
