"""Distributions of a step's values. The edges are the same at every step, so that the dashboard can add up steps."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Histogram = tuple[list[float], list[int]]  # edges (n + 1), counts (n)


def histogram(values: Tensor, edges: NDArray[np.float64]) -> Histogram:
    """Return counts of `values` (any shape) between `edges` `[n + 1]`. Outliers count in the end bins; NaN does not
    count.
    """
    inside = values.detach().flatten().double().cpu().numpy().clip(edges[0], edges[-1])
    return edges.tolist(), np.histogram(inside, edges)[0].tolist()


def outcome_histograms(
    name: str, correct_name: str, wrong_name: str, values: Tensor, correct: Tensor, edges: NDArray[np.float64]
) -> dict[str, Histogram]:
    """Return three histograms of `values` `[N]`: all, those of rollouts that passed (`correct` `[N]` bool), and the
    others.
    """
    return {
        name: histogram(values, edges),
        correct_name: histogram(values[correct], edges),
        wrong_name: histogram(values[~correct], edges),
    }
