"""Waiting for a condition, with one limit for all tests."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
LIMIT_SECONDS = 600.0  # only a condition that never comes true takes this long, even with far too few CPUs


def eventually(found: Callable[[], T], limit: float = LIMIT_SECONDS) -> T:
    """Call `found` until it returns a true value, and return that value; fail after `limit` seconds.

    The longer it waits, the less often it calls: the processes that it waits for need the CPU.
    """
    began = time.monotonic()
    while not (result := found()):
        waited = time.monotonic() - began
        assert waited < limit, f"not within {limit} s"
        time.sleep(min(max(0.02, waited / 10), 0.25))
    return result
