"""Processes that train one policy together. A single process is the common case and has no overhead.

Several processes run the same loop. Each samples and learns from its slice of a step's prompts, and gradients are
summed, so that together they compute the same as one process (`docs/explanation/distributed.md`). All must take the
same decisions in the loop, or they wait for each other forever: see `any_process` and `from_first`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")


class LaunchError(ValueError):
    """The processes that were started cannot share the run."""


class Ranks:
    """Collectives of the processes that share a run: here a single process. `process_group` has the class
    for several.
    """

    rank = 0
    world = 1

    @property
    def first(self) -> bool:
        """Return if this process writes events and checkpoints."""
        return self.rank == 0

    def my_slice(self, count: int) -> range:
        """Return the range of this process among `count` prompts: one block per process, of sizes as equal
        as possible.
        """
        return range(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def sum_over(self, values: Sequence[float]) -> list[float]:
        """Return each value summed over the processes."""
        return list(values)

    def max_over(self, values: Sequence[float]) -> list[float]:
        """Return the maximum of each value over the processes."""
        return list(values)

    def any_process(self, flag: bool) -> bool:
        """Return if `flag` is true in any process."""
        return flag

    def from_first(self, value: T) -> T:
        """Return the first process's value in every process."""
        return value

    def gather(self, value: T) -> list[T] | None:
        """Return the values of all processes in the first one; None in the others."""
        return [value]

    def gather_everywhere(self, value: T) -> list[T]:
        """Return the values of all processes in every process."""
        return [value]

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace the gradient of each parameter by its sum over the processes. A gradient stays None only if it is
        None in every process.
        """


ALONE = Ranks()
