"""Add the row format that was chosen for an uploaded dataset."""

import sqlalchemy as sa
from alembic import op

revision: str = "2026_11_30_upload_format"
down_revision: str | None = "2026_11_29_row_formats"

BEFORE, NOW = "uq_datasets_project_sha256_columns", "uq_datasets_project_sha256_columns_read_as"


def upgrade() -> None:
    op.add_column("datasets", sa.Column("read_as", sa.Text(), server_default="auto", nullable=False))
    op.drop_constraint(op.f(BEFORE), "datasets")
    op.create_unique_constraint(op.f(NOW), "datasets", ["project", "sha256", "columns", "read_as"])


def downgrade() -> None:
    op.drop_constraint(op.f(NOW), "datasets")
    op.create_unique_constraint(op.f(BEFORE), "datasets", ["project", "sha256", "columns"])
    op.drop_column("datasets", "read_as")
