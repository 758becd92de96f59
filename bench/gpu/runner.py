"""Runs a part in a child process, within its time limit."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Literal

from bench.gpu.findings import CheckFailed, CheckPart, Item, Setup

START_SECONDS = 180.0  # limit for the imports of a child, which do not count as time of its part
STOP_SECONDS = 10.0  # limit for the end of a child


@dataclass
class Result:
    """Findings of a part. error: the reason if it failed or was cut."""

    status: Literal["done", "failed", "cut"]
    seconds: float
    items: list[Item] = field(default_factory=list)
    error: str = ""


def run_part(part: CheckPart, setup: Setup, shown: Callable[[Item], None]) -> Result:
    """Run a part in a new process, which frees all memory of the device at its end. shown: gets each item at once.

    What a part found before it failed or was cut is in the result.
    """
    # Not forked: a GPU cannot be used in a fork of a process that has only looked for one.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_serve, args=(part, setup, theirs), name=part.name)
    child.start()
    theirs.close()
    began = time.monotonic()
    result = Result("cut", 0.0)
    try:
        if not ours.poll(START_SECONDS):
            raise EOFError
        ours.recv()
        began = time.monotonic()
        _receive(ours, began + part.limit, result, shown)
    except EOFError:
        _stop(child)
        result.status = "failed"
        result.error = f"its process ended early, with exit code {child.exitcode}; its output above can have the reason"
    finally:
        _stop(child)
        ours.close()
    result.seconds = round(time.monotonic() - began, 1)
    return result


def _receive(connection: Connection, end: float, result: Result, shown: Callable[[Item], None]) -> None:
    """Add what the child sends until it ends, or until the time `end`."""
    while connection.poll(max(0.0, end - time.monotonic())):
        received = connection.recv()
        if isinstance(received, Result):
            result.status, result.error = received.status, received.error
            return
        result.items.append(received)
        shown(received)
    result.error = "reached its time limit"


def _serve(part: CheckPart, setup: Setup, connection: Connection) -> None:
    connection.send(None)  # ready: the modules of the part are imported
    end = Result("done", 0.0)
    try:
        for item in part.run(setup):
            connection.send(item)
    except CheckFailed as error:
        end = Result("failed", 0.0, error=str(error))
    except Exception as error:  # every part must report, whatever a new card or a new library does
        traceback.print_exc()
        end = Result("failed", 0.0, error=f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
    connection.send(end)


def _stop(child: multiprocessing.process.BaseProcess) -> None:
    child.join(0.1)
    for end in (child.terminate, child.kill):
        if child.is_alive():
            end()
            child.join(STOP_SECONDS)
