"""Metrics: one row per step with all values in one jsonb (371k points/s written; 70k points/s with a row per point)."""

from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, JobKey, Timestamp


class StepMetrics(Base):
    """All metrics of one step of a job."""

    __tablename__ = "metrics"

    job_id: Mapped[JobKey]
    step: Mapped[int] = mapped_column(primary_key=True)
    ts: Mapped[Timestamp]
    values: Mapped[dict[str, Any]]


class MetricBlock(Base):
    """Summary of one metric over 32 consecutive steps (`jobs.repository.curves.BLOCK`), so that a long curve does
    not need the jsonb of every step. The last steps of a job, up to 32, are in no block yet. The order of the key is
    for reading one metric."""

    __tablename__ = "metric_blocks"

    job_id: Mapped[JobKey]
    name: Mapped[str] = mapped_column(primary_key=True)
    start: Mapped[int] = mapped_column(primary_key=True)
    first_step: Mapped[int]
    last_step: Mapped[int]
    ts: Mapped[Timestamp]
    count: Mapped[int]
    non_finite: Mapped[int]
    min: Mapped[float | None]
    max: Mapped[float | None]
    sum: Mapped[float | None]
    last: Mapped[float | None]
