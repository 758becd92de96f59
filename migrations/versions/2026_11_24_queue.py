"""Add the queue: machines with GPUs instead of slots, pausing, limits and shares of projects, offsets per attempt."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "2026_11_24_queue"
down_revision: str | None = "2026_11_24_health"

STATUSES = ("queued", "waiting", "running", "cancelling", "succeeded", "failed", "cancelled")
NEW_STATUSES = {"pausing": "running", "paused": "queued"}  # and what is nearest to each without it
REASONS = (
    "user",
    "crashed",
    "out_of_memory",
    "non_finite",
    "bad_spec",
    "health",
    "lost_worker",
    "worker_stopped",
    "dependency_failed",
)
NEW_REASONS = ("disk_full", "quota", "timed_out", "no_progress", "idle_gpu", "preempted")
TABLES = ("jobs", "attempts", "events")
WORKER_STATUSES = ("online", "draining", "stopping", "lost", "offline")
LIMITS = ("max_gpus", "max_queued", "retention_days")
BUDGETS = ("budget_slot_hours", "user_budget_slot_hours")


def allow(column: str, values: tuple[str, ...]) -> None:
    for table in TABLES:
        op.drop_constraint(column, table, type_="check")
        op.create_check_constraint(column, table, sa.column(column).in_(values))


def upgrade() -> None:
    allow("status", (*STATUSES, *NEW_STATUSES))
    allow("reason", (*REASONS, *NEW_REASONS))
    for name in LIMITS:
        op.add_column("projects", sa.Column(name, sa.Integer()))
    for name in BUDGETS:
        op.add_column("projects", sa.Column(name, sa.Double()))
    op.add_column("projects", sa.Column("weight", sa.Double(), nullable=False, server_default="1"))
    op.add_column("jobs", sa.Column("user", sa.Text(), nullable=False, server_default="user"))
    op.add_column("jobs", sa.Column("forgiven", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("preempted", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("jobs", sa.Column("log_length", sa.BigInteger(), nullable=False, server_default="0"))
    for name in ("user", "forgiven", "preempted", "log_length"):
        op.alter_column("jobs", name, server_default=None)
    op.execute("UPDATE jobs SET log_length = log_offset")
    # A spec from before has no limits, and no labels of machines that it wants.
    op.execute("""
        UPDATE jobs SET spec = spec
            || jsonb_build_object('limits', jsonb_build_object(
                'timeout_seconds', NULL, 'no_progress_seconds', NULL, 'min_gpu_utilisation', NULL,
                'gpu_idle_seconds', 600, 'max_attempts', NULL))
            || jsonb_build_object('resources', coalesce(spec->'resources', '{"gpus": 0}') || '{"labels": {}}')
    """)
    op.add_column("attempts", sa.Column("first_step", sa.Integer(), nullable=False, server_default="0"))
    for name in ("events_offset", "log_offset"):
        op.add_column("attempts", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
        op.drop_column("jobs", name)
    for name in ("first_step", "events_offset", "log_offset"):
        op.alter_column("attempts", name, server_default=None)
    op.create_index(op.f("ix_attempts_finished_at"), "attempts", ["finished_at"])
    op.drop_index("ix_jobs_queued", "jobs")
    op.drop_index("ix_jobs_unfinished", "jobs")
    unfinished = sa.text("status NOT IN ('succeeded', 'failed', 'cancelled')")
    op.create_index("ix_jobs_unfinished", "jobs", ["status"], postgresql_where=unfinished)
    op.drop_table("workers")  # those that run register again
    op.create_table(
        "workers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("labels", postgresql.JSONB(), nullable=False),
        sa.Column("versions", postgresql.JSONB(), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("drained", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("cpu_slots", sa.Integer(), nullable=False),
        sa.Column("stuck_slots", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "heartbeat_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.CheckConstraint(sa.column("status").in_(WORKER_STATUSES), name=op.f("ck_workers_status")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
    op.create_table(
        "gpus",
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("uuid", sa.Text(), nullable=False),
        sa.Column("memory_total", sa.BigInteger(), nullable=False),
        sa.Column("memory_used", sa.BigInteger(), nullable=False),
        sa.Column("utilisation", sa.Double(), nullable=False),
        sa.Column("job_id", sa.Uuid()),
        sa.Column("clean", sa.Boolean(), nullable=False),
        sa.Column("released_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["worker"], ["workers.name"], name=op.f("fk_gpus_worker"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_gpus_job_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("worker", "index", name=op.f("pk_gpus")),
    )
    op.create_index(op.f("ix_gpus_job_id"), "gpus", ["job_id"])


def downgrade() -> None:
    op.drop_table("gpus")
    op.drop_table("workers")
    op.create_table(
        "workers",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid()),
        sa.Column(
            "heartbeat_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_workers_job_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
    op.drop_index(op.f("ix_attempts_finished_at"), "attempts")
    for name in ("events_offset", "log_offset"):
        op.add_column("jobs", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
        op.alter_column("jobs", name, server_default=None)
    op.execute("UPDATE jobs SET log_offset = log_length")
    for name in ("first_step", "events_offset", "log_offset"):
        op.drop_column("attempts", name)
    for name in ("user", "forgiven", "preempted", "log_length"):
        op.drop_column("jobs", name)
    op.execute("UPDATE jobs SET spec = (spec - 'limits') #- '{resources,labels}'")
    for name in (*LIMITS, *BUDGETS, "weight"):
        op.drop_column("projects", name)
    for table in TABLES:
        for status, nearest in NEW_STATUSES.items():
            op.execute(
                sa.table(table, sa.column("status"))
                .update()
                .where(sa.column("status") == status)
                .values(status=nearest)
            )
        newer = sa.column("reason").in_(NEW_REASONS)
        op.execute(sa.table(table, sa.column("reason")).update().where(newer).values(reason="crashed"))
    allow("status", STATUSES)
    allow("reason", REASONS)
    op.drop_index("ix_jobs_unfinished", "jobs")
    op.create_index(
        "ix_jobs_unfinished",
        "jobs",
        ["status"],
        postgresql_where=sa.text("status IN ('waiting', 'running', 'cancelling')"),
    )
    op.create_index("ix_jobs_queued", "jobs", ["gpus", "created_at"], postgresql_where=sa.text("status = 'queued'"))
