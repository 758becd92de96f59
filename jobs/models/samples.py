"""Samples: groups kept for people to read, with the columns that lists show."""

from typing import Any

from sqlalchemy import BigInteger, Index
from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, JobRef, Serial


class Sample(Base):
    """A sampled group. `bytes`: size of `group` as JSON text, which counts towards the limit of the job."""

    __tablename__ = "samples"
    __table_args__ = (Index(None, "job_id", "id"),)

    id: Mapped[Serial]
    job_id: Mapped[JobRef]
    step: Mapped[int]
    prompt_id: Mapped[str]
    mean_reward: Mapped[float | None]
    entropy: Mapped[float | None]
    rareness: Mapped[float | None]
    gap: Mapped[float | None]
    passed: Mapped[int]
    size: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)
    group: Mapped[dict[str, Any]] = mapped_column(deferred=True)
