"""Add jobs on several machines: their number, and the machines that run a job now."""

import sqlalchemy as sa
from alembic import op

revision: str = "2026_11_29_machines"
down_revision: str | None = "2026_11_24_samples"

STATES = ("called", "preparing", "ready", "ended")
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
    "disk_full",
    "quota",
    "timed_out",
    "no_progress",
    "idle_gpu",
    "preempted",
)


def upgrade() -> None:
    op.add_column("jobs", sa.Column("machines", sa.Integer(), server_default="1", nullable=False))
    op.execute("UPDATE jobs SET spec = jsonb_set(spec, '{resources,machines}', '1') WHERE spec ? 'resources'")
    op.create_table(
        "job_machines",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("lease_token", sa.Uuid(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("state_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("endpoint", sa.Text()),
        sa.Column("reason", sa.String(32)),
        sa.Column("message", sa.Text()),
        sa.CheckConstraint(sa.column("state").in_(STATES), name=op.f("ck_job_machines_state")),
        sa.CheckConstraint(sa.column("reason").in_(REASONS), name=op.f("ck_job_machines_reason")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_machines_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "rank", name=op.f("pk_job_machines")),
    )
    op.create_index(op.f("ix_job_machines_worker"), "job_machines", ["worker"])
    op.execute("""
        INSERT INTO job_machines (job_id, rank, worker, lease_token, state)
            SELECT id, 0, worker, lease_token, 'ready' FROM jobs
            WHERE status IN ('running', 'pausing', 'cancelling') AND worker IS NOT NULL AND lease_token IS NOT NULL
    """)


def downgrade() -> None:
    op.drop_table("job_machines")
    op.execute("UPDATE jobs SET spec = spec #- '{resources,machines}'")
    op.drop_column("jobs", "machines")
