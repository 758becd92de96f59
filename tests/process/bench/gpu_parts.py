"""Parts that the tests of the check on a GPU run. Without torch, so that the processes start at once."""

import os
import threading
from collections.abc import Iterator

from bench.gpu.findings import Item, Measure, Setup, at_most, required


def found(setup: Setup) -> Iterator[Item]:
    yield Measure("step", 2.0, "s")
    yield f"on {setup.device}"


def endless(_: Setup) -> Iterator[Item]:
    yield "before the end"
    threading.Event().wait()


def raising(_: Setup) -> Iterator[Item]:
    yield "before the error"
    raise RuntimeError("no kernel\nfor this card")


def dying(_: Setup) -> Iterator[Item]:
    yield "before the death"
    os._exit(9)


def wrong(_: Setup) -> Iterator[Item]:
    yield from required([at_most("gap", 2.0, "nats", 1.0)])
