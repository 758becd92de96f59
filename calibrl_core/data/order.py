"""Order of the examples: shuffled epochs, one after another, and a place in them that a checkpoint keeps, so that a
resumed run neither repeats nor skips an example.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np

from calibrl_core.data.schema import Example


class DataOrder:
    """A new shuffle of all examples per epoch, or always the order of the data.

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
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """`state`: as `state()` returned it. None: start at the first epoch."""
        self._examples, self._seed, self._per_step, self._shuffle = examples, seed, per_step, shuffle
        self._position: int = state["position"] if state else 0  # in all epochs together
        self._waiting: list[int] = list(state["waiting"]) if state else []  # indices for the next step
        self._taken: set[int] = set()  # by the current step
        self._epoch = -1
        self._indices: list[int] = []  # of that epoch

    def state(self) -> dict[str, Any]:
        """Return the state to continue with after the current step, as JSON values."""
        return {"position": self._position, "waiting": self._waiting}

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
        epoch, offset = divmod(self._position, self._rows)
        if epoch != self._epoch:
            rng = np.random.default_rng([self._seed, epoch])
            self._indices = rng.permutation(self._rows).tolist() if self._shuffle else list(range(self._rows))
            self._epoch = epoch
        self._position += 1
        return self._indices[offset]
