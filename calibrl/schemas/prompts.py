"""Visits of prompts: what a run, and other runs, did with one prompt over time."""

from typing import Literal
from uuid import UUID

from pydantic import Field

from calibrl.schemas.base import Page, Record

PromptList = Literal["all", "only_expert", "lost", "never_moved"]


class PromptLife(Record):
    """A prompt over a run. A visit is a step that learned from a group of the prompt; it is solved if a rollout is
    correct. The lists have one item per visit, in the order of steps."""

    prompt: str = Field(description="Digest of the prompt, its images and its answer: equal in all runs.")
    prompt_id: str = Field(description="Id of the row in the data of this run.")
    visits: int
    solved: int = Field(description="Number of solved visits.")
    first_step: int
    last_step: int
    expert: bool = Field(description="The row has an expert.")
    shares: list[float] = Field(description="Share of correct rollouts.")
    entropies: list[float | None] = Field(description="Mean entropy over the tokens of the rollouts, in nats.")


class PromptCounts(Record):
    """Number of prompts of a run, and of those in each list."""

    all: int
    only_expert: int = Field(description="Visited twice or more, never solved, and the row has an expert.")
    lost: int = Field(description="Solved at an earlier visit, and not at the last one.")
    never_moved: int = Field(description="Visited twice or more, always with the same share of correct rollouts.")


class PromptPage(Page[PromptLife]):
    """A page of prompts by digest, with the sizes of the lists."""

    counts: PromptCounts


class Visit(Record):
    """One step that learned from a group of the prompt."""

    step: int
    passed: int = Field(description="Number of correct rollouts.")
    size: int = Field(description="Number of rollouts.")
    entropy: float | None = Field(description="Mean entropy over the tokens of the rollouts, in nats.")
    gap: float | None = Field(description="Mean gap to the expert, in nats. None: not measured, or no expert.")
    rareness: float | None = Field(description="Mean absolute advantage of the rollouts.")


class PromptRun(Record):
    """The prompt in another run."""

    job_id: UUID
    name: str
    visits: int
    solved: int
    first_share: float = Field(description="Share of correct rollouts at its first visit.")
    last_share: float = Field(description="Share of correct rollouts at its last visit.")


class PromptVisits(Record):
    """All visits of a prompt in a run, and the other runs with this prompt that the caller can see."""

    prompt: str
    prompt_id: str
    expert: bool
    visits: list[Visit]
    runs: list[PromptRun] = Field(description="Newest first, at most 50.")
