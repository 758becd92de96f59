"""Uploaded or registered datasets, and the jobs that use them."""

from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, CreatedAt, JobKey


class Dataset(Base):
    """A file in storage, or a name on the hub (then the columns of files are NULL). `columns`: names of the columns
    to read. `read_as`: row format that was chosen."""

    __tablename__ = "datasets"
    __table_args__ = (
        Index("ix_datasets_newest", text("created_at DESC"), text("id DESC")),
        UniqueConstraint("project", "sha256", "columns", "read_as"),
        UniqueConstraint("project", "hub"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    project: Mapped[str] = mapped_column(ForeignKey("projects.slug"))
    user: Mapped[str]
    name: Mapped[str]
    format: Mapped[str | None]
    sha256: Mapped[str | None]
    bytes: Mapped[int | None] = mapped_column(BigInteger)
    rows: Mapped[int | None] = mapped_column(BigInteger)
    columns: Mapped[dict[str, Any]]
    read_as: Mapped[str] = mapped_column(default="auto", server_default="auto")
    has_columns: Mapped[list[str] | None] = mapped_column(JSONB(none_as_null=True))
    has_experts: Mapped[bool | None]
    row_format: Mapped[str | None]
    unused_columns: Mapped[list[str] | None] = mapped_column(JSONB(none_as_null=True))
    hub: Mapped[dict[str, Any] | None]
    preview: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, deferred=True)
    created_at: Mapped[CreatedAt]


class JobDataset(Base):
    """Use of a dataset by the spec of a job."""

    __tablename__ = "job_datasets"

    job_id: Mapped[JobKey]
    dataset_id: Mapped[UUID] = mapped_column(
        ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True, index=True
    )
