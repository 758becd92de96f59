"""Training loops that take turns: one process per arm, one step at a time while all others wait.

Alternation (A B A B ...) spreads the machine's other load evenly over all arms.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

LIMIT = 1800.0  # seconds that a start or a step may take


@dataclass(frozen=True)
class Orders:
    """Parameters of the next step."""

    equal_rewards: bool = False  # see `bench.rewards`


@dataclass(frozen=True)
class Step:
    """A step that was taken."""

    seconds: float  # all of it: data, rollouts, rewards, update, and what the loop itself needs
    tokens: int  # generated
    phases: dict[str, float] = field(default_factory=dict)  # seconds by phase, if the arm reports them


class Gate:
    """A loop's end of the line: `next` before each step, `done` after it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._began = 0.0

    def next(self) -> Orders | None:
        """Wait for one's turn; None: no more steps."""
        orders: Orders | None = self._connection.recv()
        self._began = time.perf_counter()
        return orders

    def done(self, tokens: int, phases: dict[str, float] | None = None) -> None:
        """The step is over."""
        self._connection.send(Step(time.perf_counter() - self._began, tokens, phases or {}))


class Arm:
    """The other end: one loop, from outside."""

    def __init__(self, name: str, loop: Callable[[Gate], None], cores: set[int]) -> None:
        """`loop` must be picklable; it runs on these cores only."""
        self.name = name
        context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks, but not the threads
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(loop, theirs, cores), name=name, daemon=True)
        self._process.start()
        theirs.close()

    def step(self, orders: Orders) -> Step:
        """Let it take one step. Raises RuntimeError if it died, TimeoutError if it takes longer than LIMIT."""
        try:
            self._connection.send(orders)
            if not self._connection.poll(LIMIT):
                raise TimeoutError(f"the arm {self.name} took longer than {LIMIT:.0f} s for a step")
            step: Step = self._connection.recv()
        except (EOFError, ConnectionError) as error:
            raise RuntimeError(f"the arm {self.name} ended early; what it wrote above says why") from error
        return step

    def close(self) -> None:
        """End its process."""
        self._process.terminate()
        self._process.join(LIMIT)
        self._connection.close()


def _serve(loop: Callable[[Gate], None], connection: Connection, cores: set[int]) -> None:
    os.sched_setaffinity(0, cores)
    loop(Gate(connection))
