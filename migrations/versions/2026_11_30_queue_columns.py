"""Add what a plan reads of the specs of jobs as columns."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "2026_11_30_queue_columns"
down_revision: str | None = "2026_11_30_project_limits"

FILL = """
UPDATE jobs SET
    machine_labels = coalesce(spec -> 'resources' -> 'labels', '{}'),
    timeout_seconds = (spec -> 'limits' ->> 'timeout_seconds')::double precision
WHERE status <> 'succeeded'
"""


def upgrade() -> None:
    op.add_column("jobs", sa.Column("machine_labels", postgresql.JSONB(), nullable=False, server_default="{}"))
    op.add_column("jobs", sa.Column("timeout_seconds", sa.Double()))
    op.execute(FILL)


def downgrade() -> None:
    op.drop_column("jobs", "timeout_seconds")
    op.drop_column("jobs", "machine_labels")
