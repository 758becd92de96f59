"""Metrics of jobs: per step, or as curves with a limited number of points (buckets of steps)."""

from datetime import datetime
from uuid import UUID

from pydantic import Field

from calibrl.schemas.base import Record


class MetricRow(Record):
    """All metrics of one step, by `family/name`. Values that are not finite are the strings NaN, Infinity,
    -Infinity."""

    step: int
    ts: datetime
    values: dict[str, float | str]


class MetricName(Record):
    """A metric that a job has reported."""

    name: str
    last_step: int = Field(description="Last step that has a value of this metric.")
    last: float | None = Field(description="Last finite value. None: no value was finite.")


class Series(Record):
    """One metric of one job, as lists of equal length with one item per bucket. Buckets without a value are left
    out."""

    job_id: UUID
    name: str
    start: list[int] = Field(description="First step of each bucket, a multiple of `width`.")
    first_step: list[int] = Field(description="First step of the bucket that has a value.")
    last_step: list[int] = Field(description="Last step of the bucket that has a value.")
    ts: list[datetime] = Field(description="Time of the value at `last_step`.")
    count: list[int] = Field(description="Number of finite values in the bucket.")
    non_finite: list[int] = Field(
        description="Number of values that are NaN, infinite or beyond 1e295. The other fields ignore these values."
    )
    min: list[float | None] = Field(
        description="Smallest finite value. `min`, `max`, `mean` and `last` are None if no value is finite."
    )
    max: list[float | None]
    mean: list[float | None]
    last: list[float | None]


class Curves(Record):
    """Metrics of one or more jobs, in buckets that begin at the same steps.

    To update: request with `from_step` = the last `start` received and `width` = this width, and replace all buckets
    from that step on with the response. Once `last_step // width` reaches the wanted number of points, request all
    buckets again without `width`.
    """

    width: int = Field(description="Steps per bucket, a power of two.")
    last_step: int | None = Field(description="Highest step of the metrics of all these jobs.")
    series: list[Series]
