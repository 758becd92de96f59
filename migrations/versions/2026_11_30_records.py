"""Add what an attempt ran on."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "2026_11_30_records"
down_revision: str | None = "2026_11_30_verdicts"


def upgrade() -> None:
    op.add_column("attempts", sa.Column("record", postgresql.JSONB()))


def downgrade() -> None:
    op.drop_column("attempts", "record")
