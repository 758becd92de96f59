"""Add the time from which the retention of a project removes data."""

import sqlalchemy as sa
from alembic import op

revision: str = "2026_11_30_retention_notice"
down_revision: str | None = "2026_11_30_audit_content"


def upgrade() -> None:
    op.add_column("projects", sa.Column("retention_from", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("projects", "retention_from")
