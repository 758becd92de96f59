"""Add the visits of prompts."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "2026_11_30_visits"
down_revision: str | None = "2026_11_30_recorded_runs"


def _list(name: str, of: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, postgresql.ARRAY(of), nullable=False)


def upgrade() -> None:
    op.create_table(
        "visits",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        *(_list(name, sa.Text()) for name in ("prompts", "ids")),
        _list("experts", sa.Boolean()),
        *(_list(name, sa.Integer()) for name in ("passed", "sizes")),
        *(_list(name, sa.Double()) for name in ("entropies", "gaps", "rareness")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_visits_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "step", name="pk_visits"),
    )
    op.create_index("ix_visits_prompts", "visits", ["prompts"], postgresql_using="gin")


def downgrade() -> None:
    op.drop_table("visits")
