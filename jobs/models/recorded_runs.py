"""Runs that another service made."""

from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, CreatedAt


class RecordedRun(Base):
    """A finished run that another service made, by the digest of its evaluation."""

    __tablename__ = "recorded_runs"

    project: Mapped[str] = mapped_column(ForeignKey("projects.slug"), primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True)
    run: Mapped[dict[str, Any]]
    created_at: Mapped[CreatedAt]
