"""Verdicts of people on stored completions, and what they say about the verifiers."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from calibrl.schemas.base import Record
from calibrl_core.settings.base import StrictSettings

Picked = Literal["random", "chosen"]
MAX_DISAGREEMENTS = 1000  # in a report


class NewVerdict(StrictSettings):
    """A person's verdict on one completion."""

    right: bool = Field(description="The answer of the completion is right.")
    picked: Picked = Field(
        "chosen",
        description="random: the service picked the completion (`verdicts/next`). chosen: the person did, for example "
        "from a list of disagreements. Rates use random ones only: chosen ones are no sample.",
    )


class PersonVerdict(Record):
    """The verdict of a person beside that of the job's verifiers."""

    sample_id: int
    step: int
    prompt_id: str
    completion: int = Field(description="Index of the completion in its group, from 0.")
    user: str
    right: bool = Field(description="The person says that the answer is right.")
    passed: bool = Field(description="The verifiers of the job say so.")
    picked: Picked
    created_at: datetime


class CompletionToJudge(Record):
    """A stored completion without a verdict of a person, picked at random, without the verifiers' verdict."""

    sample_id: int
    step: int
    prompt_id: str
    completion: int = Field(description="Index of the completion in its group, from 0.")
    prompt: str
    answer: str = Field(description="Reference answer.")
    text: str


class Rate(Record):
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float
    count: int = Field(description="Number of verdicts that it is measured on.")


class Trust(Record):
    """Error rates of a job's verifiers on its stored completions, by the verdicts of people on random ones."""

    job_id: UUID
    completions: int = Field(description="Number of stored completions.")
    accuracy: float | None = Field(description="Share of stored completions that the verifiers passed.")
    verdicts: int = Field(description="Number of completions with a verdict of a person; the newest one counts.")
    false_passes: Rate | None = Field(
        description="Share of passed completions that are wrong. None: no random one was judged."
    )
    false_failures: Rate | None = Field(
        description="Share of failed completions that are right. None: no random one was judged."
    )
    corrected: Rate | None = Field(
        description="Share of stored completions that are right, by the accuracy and both rates. None: one is missing."
    )
    disagreements: list[PersonVerdict] = Field(
        description=f"Verdicts of people that differ from the verifiers', the newest {MAX_DISAGREEMENTS:,} at most."
    )
