"""Studies, and the jobs of each."""

from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import JSON, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from calibrl.schemas import StudyStatus
from jobs.models.base import Base, CreatedAt, JobRef, Timestamp


class Study(Base):
    """A study. `user`: whose rights its jobs are submitted with. `looks`: arms that each look stopped, by the number of
    seeds. `points`: those that a sampler has chosen, by arm. `next_at`: when a service process takes the next step; a
    process that takes it moves this on."""

    __tablename__ = "studies"
    __table_args__ = (
        UniqueConstraint("project", "name"),
        Index("ix_studies_newest", text("created_at DESC"), text("id DESC")),
        Index("ix_studies_due", "next_at", postgresql_where=text("status IN ('running', 'cancelling')")),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    project: Mapped[str] = mapped_column(ForeignKey("projects.slug"))
    name: Mapped[str]
    user: Mapped[str]
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)  # not JSONB, which loses the order of the arms
    status: Mapped[StudyStatus]
    message: Mapped[str | None]
    looks: Mapped[dict[str, Any]]
    points: Mapped[dict[str, Any]]
    progress: Mapped[dict[str, Any]]
    created_at: Mapped[CreatedAt]
    finished_at: Mapped[Timestamp | None]
    next_at: Mapped[CreatedAt]


class StudyEntry(Base):
    """A job of a study, by the digest of its settings: at most one. `adopted`: the study did not submit it."""

    __tablename__ = "study_jobs"

    study_id: Mapped[UUID] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True)
    digest: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[JobRef] = mapped_column(index=True)
    adopted: Mapped[bool]
