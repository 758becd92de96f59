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

LIMIT = 1800.0  # seconds; limit for a start or a step


@dataclass(frozen=True)
class Orders:
    """Parameters of the next step."""

    equal_rewards: bool = False  # see `bench.rewards`


@dataclass(frozen=True)
class TimedStep:
    """Result of a step."""

    seconds: float  # total: data, rollouts, rewards, update and the loop's overhead
    tokens: int  # generated
    phases: dict[str, float] = field(default_factory=dict)  # seconds by phase, if the arm reports them


class Gate:
    """The loop's end of the connection. The loop calls `next` before each step and `done` after it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._began = 0.0

    def next(self) -> Orders | None:
        """Wait for the arm's next turn; None: no more steps."""
        orders: Orders | None = self._connection.recv()
        self._began = time.perf_counter()
        return orders

    def done(self, tokens: int, phases: dict[str, float] | None = None) -> None:
        """Report the end of the step."""
        self._connection.send(TimedStep(time.perf_counter() - self._began, tokens, phases or {}))


class Arm:
    """The benchmark's end of the connection: one loop in a child process."""

    def __init__(self, name: str, loop: Callable[[Gate], None], cores: set[int]) -> None:
        """Start the loop, which must be picklable, on these cores only."""
        self.name = name
        context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks, but not the threads
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(loop, theirs, cores), name=name, daemon=True)
        self._process.start()
        theirs.close()

    def step(self, orders: Orders) -> TimedStep:
        """Run one step of the loop.

        Raises:
            RuntimeError: the loop's process has died.
            TimeoutError: the step takes longer than LIMIT.
        """
        try:
            self._connection.send(orders)
            if not self._connection.poll(LIMIT):
                raise TimeoutError(f"the arm {self.name} took longer than {LIMIT:.0f} s for a step")
            step: TimedStep = self._connection.recv()
        except (EOFError, ConnectionError) as error:
            raise RuntimeError(f"the arm {self.name} ended early; its output above shows the reason") from error
        return step

    def close(self) -> None:
        """End the loop's process."""
        self._process.terminate()
        self._process.join(LIMIT)
        self._connection.close()


def _serve(loop: Callable[[Gate], None], connection: Connection, cores: set[int]) -> None:
    os.sched_setaffinity(0, cores)
    loop(Gate(connection))
