"""Add datasets: uploaded files, names on the hub, and the jobs that use them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "2026_11_24_datasets"
down_revision: str | None = "2026_11_24_webhooks"


def upgrade() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("format", sa.Text()),
        sa.Column("sha256", sa.Text()),
        sa.Column("bytes", sa.BigInteger()),
        sa.Column("rows", sa.BigInteger()),
        sa.Column("columns", postgresql.JSONB(), nullable=False),
        sa.Column("has_columns", postgresql.JSONB()),
        sa.Column("has_experts", sa.Boolean()),
        sa.Column("hub", postgresql.JSONB()),
        sa.Column("preview", postgresql.JSONB(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["project"], ["projects.slug"], name=op.f("fk_datasets_project")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
        sa.UniqueConstraint("project", "sha256", "columns", name=op.f("uq_datasets_project_sha256_columns")),
        sa.UniqueConstraint("project", "hub", name=op.f("uq_datasets_project_hub")),
    )
    op.create_index("ix_datasets_newest", "datasets", [sa.text("created_at DESC"), sa.text("id DESC")])
    op.create_table(
        "job_datasets",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_datasets_job_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_job_datasets_dataset_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "dataset_id", name=op.f("pk_job_datasets")),
    )
    op.create_index(op.f("ix_job_datasets_dataset_id"), "job_datasets", ["dataset_id"])


def downgrade() -> None:
    op.drop_table("job_datasets")
    op.drop_table("datasets")
