"""Create the first tables, and the default project."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision: str = "2026_11_23_initial"
down_revision: str | None = None

STATUSES = ("queued", "waiting", "running", "cancelling", "succeeded", "failed", "cancelled")
REASONS = (
    "user",
    "crashed",
    "out_of_memory",
    "non_finite",
    "bad_spec",
    "lost_worker",
    "worker_stopped",
    "dependency_failed",
)


def text(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, nullable=options.pop("nullable", False), **options)


def json(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, JSONB, nullable=nullable)


def integer(name: str, *, nullable: bool = False, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.Integer, nullable=nullable, **options)


def bigint(name: str, **options: Any) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger, nullable=False, **options)


def time(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def created(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp())


def choice(name: str, members: tuple[str, ...], *, nullable: bool) -> sa.Column[Any]:
    kind = sa.Enum(*members, name=name, native_enum=False, create_constraint=True, length=32)
    return sa.Column(name, kind, nullable=nullable)


def job_id(name: str = "job_id", *, primary_key: bool = True) -> sa.Column[Any]:
    return sa.Column(
        name, sa.Uuid, sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=primary_key, nullable=False
    )


def upgrade() -> None:
    projects = op.create_table("projects", text("slug", primary_key=True), created("created_at"))
    op.bulk_insert(projects, [{"slug": "default"}])
    create_jobs()
    create_history()
    create_curves()
    create_files()
    op.create_table(
        "workers",
        text("name", primary_key=True),
        text("host"),
        text("device"),
        text("status"),
        sa.Column("job_id", sa.Uuid, sa.ForeignKey("jobs.id", ondelete="SET NULL")),
        created("heartbeat_at"),
    )


def create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid, primary_key=True),
        text("name"),
        text("kind"),
        sa.Column("project", sa.Text, sa.ForeignKey("projects.slug"), nullable=False, index=True),
        text("priority"),
        json("labels"),
        integer("gpus"),
        json("spec"),
        choice("status", STATUSES, nullable=False),
        choice("reason", REASONS, nullable=True),
        text("message", nullable=True),
        json("result", nullable=True),
        integer("attempt"),
        integer("step"),
        integer("steps_total", nullable=True),
        created("created_at"),
        time("started_at", nullable=True),
        time("finished_at", nullable=True),
        text("worker", nullable=True),
        sa.Column("lease_token", sa.Uuid),
        time("lease_expires_at", nullable=True),
        bigint("events_offset"),
        bigint("log_offset"),
        sa.Column("samples_dropped", sa.Boolean, nullable=False),
    )
    op.create_index("ix_jobs_newest", "jobs", [sa.text("created_at DESC"), sa.text("id DESC")])
    op.create_index("ix_jobs_queued", "jobs", ["gpus", "created_at"], postgresql_where=sa.text("status = 'queued'"))
    unfinished = sa.text("status IN ('waiting', 'running', 'cancelling')")
    op.create_index("ix_jobs_unfinished", "jobs", ["status"], postgresql_where=unfinished)
    depends_on = job_id("depends_on_id")
    depends_on.index = True
    op.create_table("job_dependencies", job_id(), depends_on)


def create_history() -> None:
    op.create_table(
        "attempts",
        job_id(),
        integer("number", primary_key=True),
        text("worker"),
        created("started_at"),
        time("finished_at", nullable=True),
        choice("status", STATUSES, nullable=True),
        choice("reason", REASONS, nullable=True),
        text("message", nullable=True),
    )
    op.create_table(
        "events",
        bigint("id", primary_key=True),
        job_id(primary_key=False),
        created("ts"),
        text("type"),
        choice("status", STATUSES, nullable=True),
        choice("reason", REASONS, nullable=True),
        text("actor"),
        text("message", nullable=True),
    )
    op.create_index("ix_events_job_id_id", "events", ["job_id", "id"])
    op.create_table(
        "log_chunks",
        job_id(),
        bigint("start", primary_key=True, autoincrement=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )


def create_curves() -> None:
    op.create_table("metrics", job_id(), integer("step", primary_key=True), time("ts"), json("values"))
    op.create_table(
        "histograms",
        job_id(),
        text("name", primary_key=True),
        integer("step", primary_key=True),
        sa.Column("edges", ARRAY(sa.Double), nullable=False),
        sa.Column("counts", ARRAY(sa.BigInteger), nullable=False),
    )
    op.create_table(
        "samples",
        bigint("id", primary_key=True),
        job_id(primary_key=False),
        integer("step"),
        text("prompt_id"),
        sa.Column("mean_reward", sa.Double),
        integer("passed"),
        integer("size"),
        bigint("bytes"),
        json("group"),
    )
    op.create_index("ix_samples_job_id_id", "samples", ["job_id", "id"])


def create_files() -> None:
    op.create_table("images", text("sha256", primary_key=True), sa.Column("png", sa.LargeBinary, nullable=False))
    op.create_table(
        "job_images",
        job_id(),
        sa.Column("sha256", sa.Text, sa.ForeignKey("images.sha256"), primary_key=True, index=True),
    )
    op.create_table(
        "checkpoints",
        job_id(),
        integer("step", primary_key=True),
        text("path"),
        sa.Column("best", sa.Boolean, nullable=False),
        json("metrics"),
        created("created_at"),
    )


def downgrade() -> None:
    for table in (
        "workers",
        "checkpoints",
        "job_images",
        "images",
        "samples",
        "histograms",
        "metrics",
        "log_chunks",
        "events",
        "attempts",
        "job_dependencies",
        "jobs",
        "projects",
    ):
        op.drop_table(table)
