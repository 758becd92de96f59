"""Mixtures: the rows of several sources, each as often per epoch as the weight of its source says."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calibrl_core.data.schema import DataError, DataSource, Example, weighted_rows
from calibrl_core.data.views import ExampleView


class Mixture(ExampleView):
    """The examples of all sources, one source after another.

    A row without an occurrence is left out. IDs of a source whose name an earlier source has get its number, so that
    all IDs differ.
    """

    def __init__(
        self, sources: Sequence[DataSource], parts: Sequence[Sequence[Example]], seed: int, *, asks: bool
    ) -> None:
        """Choose the rows.

        Args:
            parts: examples of each source.
            seed: chooses the rows of a weight that is no whole number.
            asks: all prompts request an answer.

        Raises:
            DataError: a weight leaves no row of its source.
        """
        self._parts, self._asks = parts, asks
        names = [source.name for source in sources]
        self._suffixes = [f"@{number}" if name in names[:number] else "" for number, name in enumerate(names)]
        counts = [
            _occurrences(source, len(rows), np.random.default_rng([seed, number]))
            for number, (source, rows) in enumerate(zip(sources, parts, strict=True))
        ]
        self._places = [np.flatnonzero(count) for count in counts]
        self._ends = np.cumsum([len(places) for places in self._places])
        self._repeats = np.concatenate([count[count > 0] for count in counts])

    def __len__(self) -> int:
        return len(self._repeats)

    @property
    def repeats(self) -> NDArray[np.int64]:
        return self._repeats

    def _one(self, place: int) -> Example:
        part = int(np.searchsorted(self._ends, place, side="right"))
        within = place - (int(self._ends[part - 1]) if part else 0)
        return self._changed(part, self._parts[part][int(self._places[part][within])])

    def __iter__(self) -> Iterator[Example]:
        """Yield all examples; those of a source in the way that is quickest for it."""
        for part, (examples, places) in enumerate(zip(self._parts, self._places, strict=True)):
            whole = len(places) == len(examples)
            for example in examples if whole else (examples[int(place)] for place in places):
                yield self._changed(part, example)

    def _changed(self, part: int, example: Example) -> Example:
        suffix, asks = self._suffixes[part], example.asks_for_answer or self._asks
        if not suffix and asks == example.asks_for_answer:
            return example
        return replace(example, id=f"{example.id}{suffix}", asks_for_answer=asks)


def _occurrences(source: DataSource, rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return how often each row occurs per epoch."""
    counts = np.full(rows, int(source.weight), dtype=np.int64)
    counts[rng.permutation(rows)[: weighted_rows(rows, source.weight) - counts.sum()]] += 1
    if not counts.any():
        raise DataError(f"data: weight {source.weight:g} leaves none of the {rows} rows of {source.name}: raise it")
    return counts
