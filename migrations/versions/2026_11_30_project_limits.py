"""Add the highest priority and the longest run time of the jobs of a project."""

import sqlalchemy as sa
from alembic import op

revision: str = "2026_11_30_project_limits"
down_revision: str | None = "2026_11_30_sample_bytes"


def upgrade() -> None:
    op.add_column("projects", sa.Column("max_priority", sa.Text()))
    op.add_column("projects", sa.Column("max_run_hours", sa.Double()))


def downgrade() -> None:
    op.drop_column("projects", "max_run_hours")
    op.drop_column("projects", "max_priority")
