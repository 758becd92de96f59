"""Sampled groups of a job."""

from typing import Any

from pydantic import Field

from calibrl.schemas.base import Record


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
