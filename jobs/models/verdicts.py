"""Verdicts of people on completions of stored samples."""

from sqlalchemy import BigInteger, Boolean, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, CreatedAt, JobRef


class PersonVerdict(Base):
    """Verdict of one user on one completion. `picked`: random, or chosen by the user."""

    __tablename__ = "verdicts"
    __table_args__ = (Index(None, "job_id"),)

    sample_id: Mapped[int] = mapped_column(BigInteger, ForeignKey("samples.id", ondelete="CASCADE"), primary_key=True)
    completion: Mapped[int] = mapped_column(primary_key=True)
    user: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[JobRef]
    right: Mapped[bool] = mapped_column(Boolean)
    passed: Mapped[bool] = mapped_column(Boolean)
    picked: Mapped[str]
    created_at: Mapped[CreatedAt]
