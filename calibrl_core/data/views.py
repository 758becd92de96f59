"""Sequences of examples that make an example when it is used, so that the texts of a large dataset are never in memory
together.
"""

from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from calibrl_core.data.schema import Example


class ExampleView(Sequence[Example]):
    """A sequence whose examples are made by `_one`; its slices are views too."""

    @property
    def repeats(self) -> NDArray[np.int64]:
        """Occurrences of each example per epoch."""
        return np.ones(len(self), dtype=np.int64)

    @abstractmethod
    def _one(self, place: int) -> Example:
        """Return the example at a place from 0 to the length."""

    @overload
    def __getitem__(self, place: int) -> Example: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Example]: ...
    def __getitem__(self, place: int | slice) -> Example | Sequence[Example]:
        if isinstance(place, slice):
            return Selected(self, np.arange(len(self))[place])
        return self._one(range(len(self))[place])


class Selected(ExampleView):
    """The examples at some places of a sequence, in the order of the places."""

    def __init__(self, examples: Sequence[Example], places: NDArray[np.int64] | Sequence[int]) -> None:
        self._examples, self._places = examples, np.asarray(places, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def repeats(self) -> NDArray[np.int64]:
        return repeats_of(self._examples)[self._places]

    def _one(self, place: int) -> Example:
        return self._examples[int(self._places[place])]


def repeats_of(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Return how often each example occurs per epoch of training."""
    return examples.repeats if isinstance(examples, ExampleView) else np.ones(len(examples), dtype=np.int64)


def without(examples: Sequence[Example], rows: Collection[int]) -> Sequence[Example]:
    """Return the examples except those of some rows, counted from 1."""
    if not rows:
        return examples
    dropped = set(rows)
    return Selected(examples, [place for place in range(len(examples)) if place + 1 not in dropped])
