"""What a run tells of itself: curves, samples, checkpoints, log."""

from datetime import datetime
from typing import Any

from pydantic import Field

from calibrl.schemas.base import Record


class MetricRow(Record):
    """All metrics of one step, by `family/name`. Not finite: the strings NaN, Infinity, -Infinity."""

    step: int
    ts: datetime
    values: dict[str, float | str]


class Histogram(Record):
    """Counts between fixed edges: `len(edges) == len(counts) + 1`; outliers fall in the end bins.

    One of a budget of points holds those of `width` steps from `step` on, added up.
    """

    step: int
    name: str
    edges: list[float]
    counts: list[int]
    width: int = Field(1, description="steps that it may hold: a power of two")
    merged: int = Field(1, description="histograms that were added up")
    left_out: int = Field(0, description="histograms of these steps with other edges than the last one has")


class SampleSummary(Record):
    """A sampled group, without its contents."""

    id: int
    step: int
    prompt_id: str
    mean_reward: float | None
    entropy: float | None = Field(None, description="mean over the tokens of its completions, in nats")
    rareness: float | None = Field(None, description="mean |advantage| of its completions")
    gap: float | None = Field(None, description="mean gap to the expert of the tokens that have one, in nats")
    passed: int = Field(description="completions that passed")
    size: int = Field(description="completions in the group")


class Sample(SampleSummary):
    """A sampled group, whole. `group` has the shape that `calibrl_core.report.SampleGroup` documents."""

    group: dict[str, Any]


class Checkpoint(Record):
    """A checkpoint that a job has written and still keeps."""

    step: int
    path: str
    best: bool
    metrics: dict[str, float | str]
    created_at: datetime


class StoredFile(Record):
    """A file that can be downloaded. As long as `etag` is the same, so is the content."""

    name: str = Field(description="with the folders above it: adapter/adapter_config.json")
    bytes: int
    etag: str


class CheckpointFiles(Checkpoint):
    """A checkpoint and its files, by name."""

    files: list[StoredFile]


class LogChunk(Record):
    """A part of the log, in bytes since its beginning; ask again with `after=next` for what follows."""

    text: str
    next: int
