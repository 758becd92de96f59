"""The processes that train one policy together. One process alone is the common case, and costs nothing."""

from collections.abc import Sequence


class Ranks:
    """This process among those that share a run; alone unless made otherwise."""

    rank = 0
    world = 1

    def share(self, count: int) -> range:
        """Which of `count` prompts of a step are this process's: one block each, as even as they go."""
        return range(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def total(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the processes."""
        return list(values)

    def most(self, values: Sequence[float]) -> list[float]:
        """Each value's maximum over the processes."""
        return list(values)
