"""Output of a run: metrics, samples, checkpoints, log."""

from datetime import datetime
from typing import Any

from pydantic import Field

from calibrl.schemas.base import Record


class MetricRow(Record):
    """All metrics of one step, by `family/name`. Values that are not finite are the strings NaN, Infinity,
    -Infinity."""

    step: int
    ts: datetime
    values: dict[str, float | str]


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


class SampleSummary(Record):
    """A sampled group without its contents."""

    id: int
    step: int
    prompt_id: str
    mean_reward: float | None
    entropy: float | None = Field(None, description="Mean entropy over the tokens of its completions, in nats.")
    rareness: float | None = Field(None, description="Mean absolute advantage of its completions.")
    gap: float | None = Field(None, description="Mean gap to the expert over the tokens that have one, in nats.")
    passed: int = Field(description="Number of completions that passed.")
    size: int = Field(description="Number of completions in the group.")


class Sample(SampleSummary):
    """A sampled group with its contents. `calibrl_core.report.SampleGroup` documents the shape of `group`."""

    group: dict[str, Any]


class Checkpoint(Record):
    """A checkpoint that a job has written and still keeps."""

    step: int
    path: str
    best: bool
    metrics: dict[str, float | str]
    created_at: datetime


class StoredFile(Record):
    """A file to download. The content only changes if `etag` changes."""

    name: str = Field(description="Path within the checkpoint, such as adapter/adapter_config.json.")
    bytes: int
    etag: str


class CheckpointFiles(Checkpoint):
    """A checkpoint and its files, by name."""

    files: list[StoredFile]


class LogChunk(Record):
    """A part of the log. `next` is the offset of its end in bytes; send it as `after` for the following part."""

    text: str
    next: int
