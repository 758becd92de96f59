"""Histograms of a job."""

from pydantic import Field

from calibrl.schemas.base import Record


class Histogram(Record):
    """Counts between fixed edges: `len(edges) == len(counts) + 1`. Outliers are in the first and last bin.

    With a limit of `points`, a histogram is the sum over `width` steps from `step` on.
    """

    step: int
    name: str
    edges: list[float]
    counts: list[int]
    width: int = Field(1, description="Number of steps that the histogram can cover, a power of two.")
    merged: int = Field(1, description="Number of histograms that were added up.")
    left_out: int = Field(
        0,
        description="Number of histograms of these steps that were left out because their edges differ from those "
        "of the last one.",
    )
