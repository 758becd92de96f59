"""Add the row format of datasets, and the columns that it does not use."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "2026_11_29_row_formats"
down_revision: str | None = "2026_11_29_machines"


def upgrade() -> None:
    op.add_column("datasets", sa.Column("row_format", sa.Text()))
    op.add_column("datasets", sa.Column("unused_columns", postgresql.JSONB()))


def downgrade() -> None:
    op.drop_column("datasets", "unused_columns")
    op.drop_column("datasets", "row_format")
