"""Add the accuracy per prompt of evaluations."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "2026_11_24_evaluations"
down_revision: str | None = "2026_11_24_jobs_api"


def upgrade() -> None:
    op.create_table(
        "accuracies",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("model_index", sa.Integer(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.Column("prompts", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("values", postgresql.ARRAY(sa.Double()), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_accuracies_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "model_index", "split", name=op.f("pk_accuracies")),
    )


def downgrade() -> None:
    op.drop_table("accuracies")
