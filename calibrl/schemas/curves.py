"""Curves within a budget of points: buckets of steps."""

from datetime import datetime
from uuid import UUID

from pydantic import Field

from calibrl.schemas.base import Record


class MetricName(Record):
    """A metric that a job has reported."""

    name: str
    last_step: int = Field(description="the last step that has it")
    last: float | None = Field(description="its last finite value; None where there never was one")


class Series(Record):
    """One metric of one job, as lists of equal length with an item a bucket; buckets without a value are left out."""

    job_id: UUID
    name: str
    start: list[int] = Field(description="where the buckets begin: multiples of `width`")
    first_step: list[int] = Field(description="the first step that has a value")
    last_step: list[int] = Field(description="the last one")
    ts: list[datetime] = Field(description="the time of the last one")
    count: list[int] = Field(description="finite values")
    non_finite: list[int] = Field(
        description="NaN, infinities and what lies beyond 1e295, which no other number counts"
    )
    min: list[float | None] = Field(description="None, as max, mean and last, where no value is finite")
    max: list[float | None]
    mean: list[float | None]
    last: list[float | None]


class Curves(Record):
    """Metrics of one or more jobs, in buckets that begin at the same steps.

    Those of later steps: ask with `from_step` = the last `start` seen and `width` = this width, and put what comes in
    the place of what begins there or later. Once `last_step // width` reaches the points wanted, ask for all anew.
    """

    width: int = Field(description="steps a bucket: a power of two")
    last_step: int | None = Field(description="the highest step of all these jobs' metrics")
    series: list[Series]
