"""Which examples a step takes: a fresh shuffle an epoch, a function of seed and step alone, so that a resumed run
neither repeats nor skips one."""

import numpy as np


def step_indices(seed: int, step: int, rows: int, per_step: int) -> list[int]:
    """Indices below `rows` of the `per_step` examples of `step` (from 0); a step may span epochs."""
    first = step * per_step
    orders: dict[int, list[int]] = {}
    indices = []
    for position in range(first, first + per_step):
        epoch, offset = divmod(position, rows)
        if epoch not in orders:
            orders[epoch] = np.random.default_rng([seed, epoch]).permutation(rows).tolist()
        indices.append(orders[epoch][offset])
    return indices
