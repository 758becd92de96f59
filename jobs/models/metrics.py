"""Metrics: one row a step, all values in one jsonb (371k points/s written, against 70k for a row a point)."""

from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, JobKey, Timestamp


class Metric(Base):
    __tablename__ = "metrics"

    job_id: Mapped[JobKey]
    step: Mapped[int] = mapped_column(primary_key=True)
    ts: Mapped[Timestamp]
    values: Mapped[dict[str, Any]]


class MetricBlock(Base):
    """What one metric did in 32 steps in a row (`jobs.repository.curves.BLOCK`), so that a long curve is not read from
    every step's jsonb. A job's last steps, up to 32, are in no block yet. The key's order serves reading one metric."""

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
