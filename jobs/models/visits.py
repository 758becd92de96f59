"""Visits of prompts: results of each group that a step learned from."""

from sqlalchemy import Boolean, Double, Index, Integer, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, JobKey, SafeText


class StepVisits(Base):
    """The groups of one step. All lists have one item per group. `prompts`: digests of the prompts."""

    __tablename__ = "visits"
    __table_args__ = (Index(None, "prompts", postgresql_using="gin"),)

    job_id: Mapped[JobKey]
    step: Mapped[int] = mapped_column(primary_key=True)
    prompts: Mapped[list[str]] = mapped_column(ARRAY(Text))
    ids: Mapped[list[str]] = mapped_column(ARRAY(SafeText))
    experts: Mapped[list[bool]] = mapped_column(ARRAY(Boolean))
    passed: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    sizes: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    entropies: Mapped[list[float | None]] = mapped_column(ARRAY(Double))
    gaps: Mapped[list[float | None]] = mapped_column(ARRAY(Double))
    rareness: Mapped[list[float | None]] = mapped_column(ARRAY(Double))
