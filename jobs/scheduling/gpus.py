"""The choice of GPUs on a machine."""

from collections.abc import Sequence


def choose_gpus(free: Sequence[int], count: int) -> tuple[int, ...] | None:
    """Return the `count` lowest of the free GPUs of a machine, by index, or None if there are fewer."""
    return tuple(sorted(free)[:count]) if len(free) >= count else None
