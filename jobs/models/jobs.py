"""Jobs and what they wait for."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, ColumnElement, ForeignKey, Index, Text, cast, exists, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by
from sqlalchemy.orm import Mapped, MappedSQLExpression, aliased, column_property, mapped_column, relationship

from calibrl.schemas import JobKind, JobStatus, Reason
from jobs.models.attempts import Attempt
from jobs.models.base import Base, CreatedAt, JobKey, SafeText, Timestamp
from jobs.models.datasets import JobDataset
from jobs.models.events import Event
from jobs.models.job_machines import JobMachine

IN_LISTS = "in lists"  # derived columns of a job that a list loads with it


class JobDependency(Base):
    """`job_id` can start only after `depends_on_id` has succeeded."""

    __tablename__ = "job_dependencies"

    job_id: Mapped[JobKey]
    depends_on_id: Mapped[JobKey] = mapped_column(index=True)


class JobOrigin(Base):
    """`job_id` derives from `from_id`: it was forked from that job, depends on it, or its spec names it."""

    __tablename__ = "job_origins"

    job_id: Mapped[JobKey]
    from_id: Mapped[JobKey] = mapped_column(index=True)


def _of_attempts(job_id: Mapped[UUID], value: ColumnElement[Any]) -> MappedSQLExpression[Any]:
    query = select(value).where(Attempt.job_id == job_id).correlate_except(Attempt)
    return column_property(query.scalar_subquery(), deferred=True, group=IN_LISTS)


def _firing(job_id: Mapped[UUID]) -> MappedSQLExpression[list[str]]:
    """The rules whose last alert says that they fired."""
    later = aliased(Event)
    rule = Event.alert["rule"].astext
    superseded = exists().where(later.job_id == Event.job_id, later.alert["rule"].astext == rule, later.id > Event.id)
    query = select(func.coalesce(func.array_agg(aggregate_order_by(rule, Event.id)), cast([], ARRAY(Text))))
    query = query.where(Event.job_id == job_id, Event.alert["state"].astext == "fired", ~superseded)
    return column_property(query.correlate_except(Event, later).scalar_subquery(), deferred=True, group=IN_LISTS)


class Job(Base):
    """A job with its lease, if a worker holds it. `preempted`: its worker must stop it for a job of a higher class.
    `forgiven`: number of attempts before the last retry, whose lost workers do not count any more. `saved_attempt`:
    number of the last attempt that saved a checkpoint after its start. `delays`: starts in a row that failed by a fault
    that can pass; `not_before`: earliest time of the next one. `stepped_at`: time of the last change of `step`.
    `feed`: cursor of its last feed row."""

    __tablename__ = "jobs"
    __table_args__ = (
        # One index per sort key. The last column breaks ties; lists read an index in both directions.
        Index("ix_jobs_newest", text("created_at DESC"), text("id DESC")),
        Index("ix_jobs_by_name", "name", "id"),
        Index("ix_jobs_by_status", "status", "created_at", "id"),
        Index("ix_jobs_by_end", text("coalesce(finished_at, 'infinity'::timestamptz)"), "id"),
        # Indices for filters.
        Index("ix_jobs_by_project", "project", "created_at", "id"),
        Index("ix_jobs_by_user", "user", "created_at", "id"),
        Index("ix_jobs_by_label", "labels", postgresql_using="gin", postgresql_ops={"labels": "jsonb_path_ops"}),
        Index(
            "ix_jobs_unfinished", "status", postgresql_where=text("status NOT IN ('succeeded', 'failed', 'cancelled')")
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str]
    kind: Mapped[JobKind] = mapped_column(SafeText)
    project: Mapped[str] = mapped_column(ForeignKey("projects.slug"))
    user: Mapped[str]
    priority: Mapped[str]
    labels: Mapped[dict[str, Any]]
    machines: Mapped[int] = mapped_column(default=1, server_default="1")
    gpus: Mapped[int]  # on each machine
    # Of the spec, which is too large to be read for each plan.
    machine_labels: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    timeout_seconds: Mapped[float | None]
    spec: Mapped[dict[str, Any]]
    notes: Mapped[str] = mapped_column(default="")
    forked_from: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))
    forked_step: Mapped[int | None]

    status: Mapped[JobStatus]
    reason: Mapped[Reason | None]
    message: Mapped[str | None]
    result: Mapped[dict[str, Any] | None]
    attempt: Mapped[int] = mapped_column(default=0)
    forgiven: Mapped[int] = mapped_column(default=0)
    saved_attempt: Mapped[int] = mapped_column(default=0, server_default="0")
    delays: Mapped[int] = mapped_column(default=0, server_default="0")
    not_before: Mapped[Timestamp | None]
    step: Mapped[int] = mapped_column(default=0)
    steps_total: Mapped[int | None]
    stepped_at: Mapped[Timestamp | None]
    created_at: Mapped[CreatedAt]
    started_at: Mapped[Timestamp | None]
    finished_at: Mapped[Timestamp | None]

    worker: Mapped[str | None]
    lease_token: Mapped[UUID | None]
    lease_expires_at: Mapped[Timestamp | None]
    preempted: Mapped[bool] = mapped_column(default=False)

    log_length: Mapped[int] = mapped_column(BigInteger, default=0)
    sample_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")  # with their images
    samples_dropped: Mapped[bool] = mapped_column(default=False)
    feed: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")

    dependencies: Mapped[list[JobDependency]] = relationship(
        foreign_keys=JobDependency.job_id, lazy="selectin", order_by=JobDependency.depends_on_id
    )
    datasets: Mapped[list[JobDataset]] = relationship()
    origins: Mapped[list[JobOrigin]] = relationship(foreign_keys=JobOrigin.job_id)
    # Read on demand: lists need these, the queue does not.
    ended_seconds: Mapped[float] = _of_attempts(
        id, func.coalesce(func.sum(func.extract("epoch", Attempt.finished_at - Attempt.started_at)), 0.0)
    )
    attempt_started_at: Mapped[datetime | None] = _of_attempts(
        id, func.max(Attempt.started_at).filter(Attempt.finished_at.is_(None))
    )
    alerts: Mapped[list[str]] = _firing(id)
    parts: Mapped[list[JobMachine]] = relationship(viewonly=True, order_by=JobMachine.rank)

    @property
    def depends_on(self) -> list[UUID]:
        return [dependency.depends_on_id for dependency in self.dependencies]

    @property
    def workers(self) -> list[str]:
        return [part.worker for part in self.parts] if self.lease_token else []
