"""Which examples a step takes: a function of seed and step alone, so that a resumed run neither repeats nor skips
one."""

from collections.abc import Sequence

import numpy as np

from calibrl_core.data.schema import Example

_MORE = 1  # beside seed and step: what is drawn beyond a step's own examples


class DataOrder:
    """A fresh shuffle of all examples an epoch; a step may span epochs."""

    def __init__(self, examples: Sequence[Example], seed: int, per_step: int) -> None:
        self._examples, self._seed, self._per_step = examples, seed, per_step

    def examples(self, step: int) -> list[Example]:
        """The examples of `step` (from 0)."""
        return [self._examples[index] for index in step_indices(self._seed, step, len(self._examples), self._per_step)]

    def more(self, step: int, attempt: int, count: int) -> list[Example]:
        """`count` other examples for `step`, where its own taught nothing; `attempt` counts from 1."""
        rng = np.random.default_rng([self._seed, _MORE, step, attempt])
        rows = len(self._examples)
        return [self._examples[index] for index in rng.choice(rows, size=count, replace=count > rows)]


def step_indices(seed: int, step: int, rows: int, per_step: int) -> list[int]:
    """Indices below `rows` of the `per_step` examples of `step` (from 0)."""
    first = step * per_step
    orders: dict[int, list[int]] = {}
    indices = []
    for position in range(first, first + per_step):
        epoch, offset = divmod(position, rows)
        if epoch not in orders:
            orders[epoch] = np.random.default_rng([seed, epoch]).permutation(rows).tolist()
        indices.append(orders[epoch][offset])
    return indices
