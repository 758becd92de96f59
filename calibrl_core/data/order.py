"""Order of the examples: a function of seed and step alone, so that a resumed run neither repeats nor
skips an example.
"""

from collections.abc import Sequence

import numpy as np

from calibrl_core.data.schema import Example

_EXTRA = 1  # part of the seed of the examples that a step draws in addition to its own


class DataOrder:
    """A new shuffle of all examples per epoch, or always the order of the data; a step can span epochs."""

    def __init__(self, examples: Sequence[Example], seed: int, per_step: int, *, shuffle: bool = True) -> None:
        self._examples, self._seed, self._per_step, self._shuffle = examples, seed, per_step, shuffle

    def examples(self, step: int) -> list[Example]:
        """Return the examples of `step` (from 0)."""
        return [self._examples[index] for index in self._indices(step)]

    def extra_examples(self, step: int, attempt: int, count: int) -> list[Example]:
        """Return `count` other examples for `step`, for groups without a gradient; `attempt` counts from 1.

        If the data has fewer than `count` other examples, the step's own are among them.
        """
        rng = np.random.default_rng([self._seed, _EXTRA, step, attempt])
        rows = len(self._examples)
        own = self._indices(step)
        others = np.setdiff1d(np.arange(rows), own)
        pool = others if len(others) >= count else np.arange(rows)
        return [self._examples[index] for index in rng.choice(pool, size=count, replace=count > len(pool))]

    def _indices(self, step: int) -> list[int]:
        return step_indices(self._seed, step, len(self._examples), self._per_step, shuffle=self._shuffle)


def step_indices(seed: int, step: int, rows: int, per_step: int, *, shuffle: bool = True) -> list[int]:
    """Return the indices, below `rows`, of the `per_step` examples of `step` (from 0)."""
    first = step * per_step
    orders: dict[int, list[int]] = {}
    indices = []
    for position in range(first, first + per_step):
        epoch, offset = divmod(position, rows)
        if epoch not in orders:
            orders[epoch] = (
                np.random.default_rng([seed, epoch]).permutation(rows).tolist() if shuffle else list(range(rows))
            )
        indices.append(orders[epoch][offset])
    return indices
