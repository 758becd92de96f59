"""Add delays of starts that failed by a fault that can pass, and their reason."""

import sqlalchemy as sa
from alembic import op

revision: str = "2026_11_30_delays"
down_revision: str | None = "2026_11_30_stops"

TABLES = {"jobs": "reason", "attempts": "reason", "events": "reason", "job_machines": "ck_job_machines_reason"}
BEFORE = (
    "user",
    "crashed",
    "out_of_memory",
    "non_finite",
    "bad_spec",
    "health",
    "disk_full",
    "quota",
    "timed_out",
    "no_progress",
    "idle_gpu",
    "lost_worker",
    "worker_stopped",
    "preempted",
    "dependency_failed",
)


def allow(reasons: tuple[str, ...]) -> None:
    for table, constraint in TABLES.items():
        name = op.f(constraint) if constraint.startswith("ck_") else constraint
        op.drop_constraint(name, table, type_="check")
        op.create_check_constraint(name, table, sa.column("reason").in_(reasons))


def upgrade() -> None:
    op.add_column("jobs", sa.Column("delays", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("not_before", sa.DateTime(timezone=True)))
    allow((*BEFORE, "storage_away"))


def downgrade() -> None:
    for table in TABLES:
        rows = sa.table(table, sa.column("reason"))
        op.execute(rows.update().where(sa.column("reason") == "storage_away").values(reason="crashed"))
    allow(BEFORE)
    op.drop_column("jobs", "not_before")
    op.drop_column("jobs", "delays")
