"""Waiting for a condition, with one limit for all tests."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
LIMIT_SECONDS = 600.0  # only a condition that never comes true takes this long, even with far too few CPUs


def eventually(found: Callable[[], T], limit: float = LIMIT_SECONDS) -> T:
    """Call `found` until it returns a true value, and return that value; fail after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not (result := found()):
        assert time.monotonic() < deadline, f"not within {limit} s"
        time.sleep(0.02)
    return result
