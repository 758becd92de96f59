"""Add runs of studies that another service made."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "2026_11_30_recorded_runs"
down_revision: str | None = "2026_11_30_studies"

NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "recorded_runs",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("run", postgresql.JSONB(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(["project"], ["projects.slug"], name="fk_recorded_runs_project"),
        sa.PrimaryKeyConstraint("project", "digest", name="pk_recorded_runs"),
    )


def downgrade() -> None:
    op.drop_table("recorded_runs")
