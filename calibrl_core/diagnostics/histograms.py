"""How values spread over a step, between edges that are the same at every step: the dashboard adds steps up."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Histogram = tuple[list[float], list[int]]  # edges (n + 1), counts (n)


def histogram(values: Tensor, edges: NDArray[np.float64]) -> Histogram:
    """Counts of `values` (any shape); what lies outside counts in the end bins, and what is NaN nowhere."""
    inside = values.detach().flatten().double().cpu().numpy().clip(edges[0], edges[-1])
    return edges.tolist(), np.histogram(inside, edges)[0].tolist()


def by_outcome(
    name: str, correct_name: str, wrong_name: str, values: Tensor, correct: Tensor, edges: NDArray[np.float64]
) -> dict[str, Histogram]:
    """Three histograms of `values` `[N]`: all, those of rollouts that passed (`correct` `[N]` bool), and the others."""
    return {
        name: histogram(values, edges),
        correct_name: histogram(values[correct], edges),
        wrong_name: histogram(values[~correct], edges),
    }
