"""A part of the check, and what it finds: measures with their goals, and notes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A figure. reference: a limit of the hardware, an estimate or a published figure, in the same unit."""

    measure: str
    found: float | None  # None: it could not be measured
    unit: str = ""
    reference: float | None = None
    goal: str = ""
    met: bool | None = None  # None: no goal


@dataclass(frozen=True)
class Setup:
    """Device and size of a part. small: shapes that a CPU runs in seconds."""

    device: str  # cuda or cpu
    small: bool


Item = Measure | str  # a str is a note


@dataclass(frozen=True)
class CheckPart:
    """A part of the check. run: picklable; it yields measures and notes, and raises if the part fails."""

    name: str
    about: str
    limit: float  # seconds
    run: Callable[[Setup], Iterator[Item]]


class CheckFailed(Exception):
    """Checks of a part have failed. The message counts them; their rows show what was found."""


def at_most(measure: str, found: float, unit: str, limit: float) -> Measure:
    """Return a measure whose goal is an upper limit."""
    return Measure(measure, found, unit, goal=f"<= {limit:g} {unit}".strip(), met=found <= limit)


def at_least(measure: str, found: float, unit: str, limit: float, reference: float | None = None) -> Measure:
    """Return a measure whose goal is a lower limit."""
    return Measure(measure, found, unit, reference, f">= {limit:g} {unit}".strip(), met=found >= limit)


def required(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items of a part whose every goal must be met.

    Raises:
        CheckFailed: a goal was missed; all items were yielded before.
    """
    missed = 0
    for item in items:
        yield item
        missed += isinstance(item, Measure) and item.met is False
    if missed:
        raise CheckFailed(f"{missed} of the checks failed")
