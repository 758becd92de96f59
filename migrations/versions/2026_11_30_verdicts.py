"""Add verdicts of people on stored completions."""

import sqlalchemy as sa
from alembic import op

revision: str = "2026_11_30_verdicts"
down_revision: str | None = "2026_11_30_visits"

NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "verdicts",
        sa.Column("sample_id", sa.BigInteger(), nullable=False),
        sa.Column("completion", sa.Integer(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("right", sa.Boolean(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("picked", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(["sample_id"], ["samples.id"], name="fk_verdicts_sample_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_verdicts_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sample_id", "completion", "user", name="pk_verdicts"),
    )
    op.create_index("ix_verdicts_job_id", "verdicts", ["job_id"])


def downgrade() -> None:
    op.drop_table("verdicts")
