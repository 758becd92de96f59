"""Add studies and their jobs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "2026_11_30_studies"
down_revision: str | None = "2026_11_30_upload_format"

NOW = sa.text("clock_timestamp()")
STATUSES = "status IN ('running', 'cancelling', 'succeeded', 'failed', 'cancelled')"
ACTIVE = sa.text("status IN ('running', 'cancelling')")


def upgrade() -> None:
    op.create_table(
        "studies",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("spec", postgresql.JSONB(), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("message", sa.Text()),
        sa.Column("looks", postgresql.JSONB(), nullable=False),
        sa.Column("points", postgresql.JSONB(), nullable=False),
        sa.Column("progress", postgresql.JSONB(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("next_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.CheckConstraint(STATUSES, name="ck_studies_status"),
        sa.ForeignKeyConstraint(["project"], ["projects.slug"], name="fk_studies_project"),
        sa.PrimaryKeyConstraint("id", name="pk_studies"),
        sa.UniqueConstraint("project", "name", name="uq_studies_project_name"),
    )
    op.create_index("ix_studies_newest", "studies", [sa.text("created_at DESC"), sa.text("id DESC")])
    op.create_index("ix_studies_due", "studies", ["next_at"], postgresql_where=ACTIVE)
    op.create_table(
        "study_jobs",
        sa.Column("study_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("adopted", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_study_jobs_study_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_study_jobs_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("study_id", "digest", name="pk_study_jobs"),
    )
    op.create_index("ix_study_jobs_job_id", "study_jobs", ["job_id"])


def downgrade() -> None:
    op.drop_table("study_jobs")
    op.drop_table("studies")
