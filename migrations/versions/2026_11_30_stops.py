"""Add the steps that a stop lost, and the last attempt that saved a checkpoint."""

import sqlalchemy as sa
from alembic import op

revision: str = "2026_11_30_stops"
down_revision: str | None = "2026_11_30_alerts"


def upgrade() -> None:
    op.add_column("attempts", sa.Column("lost_steps", sa.Integer(), nullable=False, server_default="0"))
    op.create_index("ix_attempts_lost_steps", "attempts", ["lost_steps"], postgresql_where=sa.text("lost_steps > 0"))
    op.add_column("jobs", sa.Column("saved_attempt", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("jobs", "saved_attempt")
    op.drop_index("ix_attempts_lost_steps", "attempts")
    op.drop_column("attempts", "lost_steps")
