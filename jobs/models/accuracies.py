"""Accuracies: how each prompt of a data set fared with each model of an evaluation."""

from sqlalchemy import Double, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, JobKey


class Accuracies(Base):
    """`prompts` are digests of what each prompt is, in the data's order; `values` the shares of its samples that
    passed."""

    __tablename__ = "accuracies"

    job_id: Mapped[JobKey]
    model_index: Mapped[int] = mapped_column(primary_key=True)
    split: Mapped[str] = mapped_column(primary_key=True)
    prompts: Mapped[list[str]] = mapped_column(ARRAY(Text))
    values: Mapped[list[float]] = mapped_column(ARRAY(Double))
