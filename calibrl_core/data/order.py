"""Order of the examples: epochs, shuffled or with easy examples first, one after another, and a place in them that a
checkpoint keeps, so that a resumed run neither repeats nor skips an example.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibrl_core.data.schema import Curriculum, DataError, Example
from calibrl_core.data.views import repeats_of

UNKNOWN = 0.5  # pass ratio of an example that was not sampled yet


class DataOrder:
    """A new shuffle of all examples per epoch, each as often as `repeats_of` says, or always the order of the data.
    With a curriculum, sorted from easy to hard, examples of equal pass ratio in that order.

    A step takes no example twice. Where it would, at the end of an epoch, the example waits for the next step. Only a
    step of more examples than the data has repeats some.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        seed: int,
        per_step: int,
        *,
        shuffle: bool = True,
        curriculum: Curriculum = "none",
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """`state`: as `state()` returned it. None: start at the first epoch.

        Raises:
            DataError: the curriculum is that of the data, and an example has no pass ratio.
        """
        self._examples, self._seed, self._per_step, self._shuffle = examples, seed, per_step, shuffle
        self._position: int = state["position"] if state else 0  # in all epochs together
        self._waiting: list[int] = list(state["waiting"]) if state else []  # indices for the next step
        self._taken: set[int] = set()  # by the current step
        self._epoch = -1
        self._indices = np.zeros(0, dtype=np.int64)  # of that epoch
        self._draws = _draws(repeats_of(examples))
        self._curriculum = curriculum
        self._measured: dict[str, float] = dict(state.get("measured", {})) if state else {}  # by example ID
        # The epoch that is sorted by measured ratios, and these ratios: they stay as they were when it began.
        self._sorted: dict[str, Any] = dict(state.get("sorted", {})) if state else {}
        self._given = self._given_ratios() if curriculum == "pass_ratio" else np.zeros(0)

    def _given_ratios(self) -> NDArray[np.float64]:
        """Return the pass ratio of each example, as the data has it."""
        ratios = np.zeros(self._rows)
        without: list[str] = []
        for place, example in enumerate(self._examples):
            if example.pass_ratio is None:
                without.append(example.id)
            else:
                ratios[place] = example.pass_ratio
        if without:
            raise DataError(
                f"data: {len(without)} rows have no pass_ratio, such as {without[0]}; "
                "fill this column, or choose another curriculum"
            )
        return ratios

    def observe(self, ratios: Mapping[str, float]) -> None:
        """Take in the pass ratios that a step measured, by example ID. They sort the next epoch."""
        self._measured |= ratios

    def state(self) -> dict[str, Any]:
        """Return the state to continue with after the current step, as JSON values."""
        place = {"position": self._position, "waiting": list(self._waiting)}
        return place | ({"measured": self._measured, "sorted": self._sorted} if self._curriculum == "measured" else {})

    @property
    def epochs(self) -> float:
        """Passes over the data so far, without examples that wait for a later step."""
        return (self._position - len(self._waiting)) / len(self._draws)

    def next_step(self) -> list[Example]:
        """Begin the next step; return its examples."""
        self._taken = set()
        indices: list[int] = []
        while (missing := self._per_step - len(indices)) > 0:
            indices += self._take(missing, set(indices[len(indices) // self._rows * self._rows :]))
        self._taken = set(indices)
        return [self._examples[index] for index in indices]

    def more_examples(self, count: int) -> list[Example]:
        """Return the next `count` examples that the current step has not taken yet; fewer if the data has fewer."""
        indices = self._take(count, self._taken)
        self._taken |= set(indices)
        return [self._examples[index] for index in indices]

    def upcoming(self) -> list[Example]:
        """Return the examples of the next step, if the current one takes no more. Changes nothing."""
        ahead = copy(self)
        ahead._waiting = list(self._waiting)
        return ahead.next_step()

    @property
    def _rows(self) -> int:
        return len(self._examples)

    def _take(self, count: int, taken: set[int]) -> list[int]:
        """Return up to `count` different indices that are not in `taken`; those in it wait for the next step."""
        found: list[int] = []
        taken = set(taken)
        waiting, self._waiting = self._waiting, []
        while len(found) < count and len(taken) < self._rows:
            index = waiting.pop(0) if waiting else self._next_index()
            if index in taken:
                self._waiting.append(index)
            else:
                found.append(index)
                taken.add(index)
        self._waiting += waiting
        return found

    def _next_index(self) -> int:
        epoch, offset = divmod(self._position, len(self._draws))
        if epoch != self._epoch:
            rng = np.random.default_rng([self._seed, epoch])
            self._indices = rng.permutation(self._draws) if self._shuffle else self._draws
            self._epoch = epoch
            if self._curriculum != "none":
                ratios = self._pass_ratios(epoch)[self._indices]
                self._indices = self._indices[np.argsort(-ratios, kind="stable")]
        self._position += 1
        return int(self._indices[offset])

    def _pass_ratios(self, epoch: int) -> NDArray[np.float64]:
        """Return the ratios that sort an epoch, one per example."""
        if self._curriculum == "pass_ratio":
            return self._given
        if self._sorted.get("epoch") != epoch:
            self._sorted = {"epoch": epoch, "ratios": dict(self._measured)}
        ratios = self._sorted["ratios"]
        return np.fromiter((ratios.get(example.id, UNKNOWN) for example in self._examples), np.float64, self._rows)


def _draws(repeats: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of an epoch: of all examples once, then of those that occur twice or more, and so on."""
    return np.concatenate([np.flatnonzero(repeats > count) for count in range(repeats.max(initial=1))])
