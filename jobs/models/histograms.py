"""Histograms: distribution of one quantity at one step."""

from sqlalchemy import BigInteger, Double
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, JobKey


class Histogram(Base):
    """Histogram at one step. The order of the key is for reading one histogram over steps."""

    __tablename__ = "histograms"

    job_id: Mapped[JobKey]
    name: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    edges: Mapped[list[float]] = mapped_column(ARRAY(Double))
    counts: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
