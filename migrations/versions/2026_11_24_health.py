"""Add a reason: a health rule paused or ended the run."""

import sqlalchemy as sa
from alembic import op

revision: str = "2026_11_24_health"
down_revision: str | None = "2026_11_23_initial"

TABLES = ("jobs", "attempts", "events")
BEFORE = (
    "user",
    "crashed",
    "out_of_memory",
    "non_finite",
    "bad_spec",
    "lost_worker",
    "worker_stopped",
    "dependency_failed",
)


def allow(reasons: tuple[str, ...]) -> None:
    for table in TABLES:
        op.drop_constraint("reason", table, type_="check")
        op.create_check_constraint("reason", table, sa.column("reason").in_(reasons))


def upgrade() -> None:
    allow((*BEFORE, "health"))


def downgrade() -> None:
    for table in TABLES:
        op.execute(
            sa.table(table, sa.column("reason"))
            .update()
            .where(sa.column("reason") == "health")
            .values(reason="crashed")
        )
    allow(BEFORE)
