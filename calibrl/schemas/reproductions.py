"""Repeated jobs: what attempts ran on, and the comparison of the series of two jobs."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field

from calibrl.schemas.base import Record


class AttemptRecord(Record):
    """An attempt of a job, with what it ran on."""

    number: int = Field(description="Number of the attempt, from 1.")
    worker: str
    started_at: datetime
    finished_at: datetime | None = Field(None, description="None: it is running.")
    first_step: int = Field(description="Step from which the trainer continued.")
    record: dict[str, Any] | None = Field(
        description="Version and state of the code, versions of packages, hardware, digests of data and model. "
        "None: the trainer has not reported it."
    )


class Deviation(Record):
    """The first step at which a metric differs."""

    metric: str
    step: int
    first: float | str | None = Field(description="Value of the first job. None: it has none at this step.")
    second: float | str | None = Field(description="Value of the second job. None: it has none at this step.")
    relative: float | None = Field(
        description="Difference, divided by the larger absolute value. None: a value is missing or not finite."
    )


class DifferentField(Record):
    """A field in which two jobs differ, with both values as text."""

    field: str
    first: str
    second: str


class SeriesComparison(Record):
    """Comparison of the metrics of two jobs step by step, without times and speeds. Equal means equal bit for bit."""

    first: UUID
    second: UUID
    steps: int = Field(description="Number of compared steps: those that both jobs have reached.")
    metrics: int = Field(description="Number of compared metrics.")
    equal: bool = Field(description="True: there are compared values, all are equal, and the compared checkpoint is.")
    complete: bool = Field(description="False: a job has not ended, or one has more steps than the other.")
    deviations: list[Deviation] = Field(
        description="Metrics that differ, each with its first step, by step and then by relative difference."
    )
    checkpoint_step: int | None = Field(description="Step of the compared checkpoint, the last of both jobs.")
    checkpoint_equal: bool | None = Field(
        description="True: the weights of that checkpoint have equal checksums. None: not compared, because a job has "
        "none, or the files are not on the machine of the API or too large."
    )
    settings: list[DifferentField] = Field(description="Fields of the specs that differ, without names and labels.")
    surroundings: list[DifferentField] = Field(
        description="Differences of code, packages, hardware, data and model, as the attempts have recorded them."
    )
