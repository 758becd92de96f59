"""Accuracies: result of each prompt of a dataset for each model of an evaluation."""

from sqlalchemy import Double, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, JobKey


class Accuracies(Base):
    """Accuracy per prompt. `prompts`: digests of the prompts in the order of the data; `values`: share of passed
    samples."""

    __tablename__ = "accuracies"

    job_id: Mapped[JobKey]
    model_index: Mapped[int] = mapped_column(primary_key=True)
    split: Mapped[str] = mapped_column(primary_key=True)
    prompts: Mapped[list[str]] = mapped_column(ARRAY(Text))
    values: Mapped[list[float]] = mapped_column(ARRAY(Double))
