"""Add alert rules of projects, and the time of the last step of a job."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "2026_11_30_alert_rules"
down_revision: str | None = "2026_11_30_retention_notice"

NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "alert_rules",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("condition", postgresql.JSONB(none_as_null=True), nullable=False),
        sa.Column("labels", postgresql.JSONB(none_as_null=True), nullable=False),
        sa.Column("job_names", sa.Text()),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(["project"], ["projects.slug"], name="fk_alert_rules_project", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_alert_rules"),
        sa.UniqueConstraint("project", "name", name="uq_alert_rules_project_name"),
    )
    op.add_column("jobs", sa.Column("stepped_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("jobs", "stepped_at")
    op.drop_table("alert_rules")
