"""Sequences of examples that make an example when it is used, so that the texts of a large dataset are never in memory
together.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from calibrl_core.data.schema import Example


class ExampleView(Sequence[Example]):
    """A sequence whose examples are made by `_one`; its slices are views too."""

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

    def _one(self, place: int) -> Example:
        return self._examples[int(self._places[place])]
