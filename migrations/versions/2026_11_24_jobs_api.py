"""Add an index per sort key and filter of job lists, notes, lineage, and stored responses to repeated requests."""

import sqlalchemy as sa
from alembic import op

revision: str = "2026_11_24_jobs_api"
down_revision: str | None = "2026_11_24_feed"

END = sa.text("coalesce(finished_at, 'infinity'::timestamptz)")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("notes", sa.Text(), nullable=False, server_default=""))
    op.alter_column("jobs", "notes", server_default=None)
    op.add_column("jobs", sa.Column("forked_from", sa.Uuid()))
    op.add_column("jobs", sa.Column("forked_step", sa.Integer()))
    op.create_foreign_key(op.f("fk_jobs_forked_from"), "jobs", "jobs", ["forked_from"], ["id"], ondelete="SET NULL")
    op.drop_index("ix_jobs_project", "jobs")
    op.create_index("ix_jobs_by_name", "jobs", ["name", "id"])
    op.create_index("ix_jobs_by_status", "jobs", ["status", "created_at", "id"])
    op.create_index("ix_jobs_by_end", "jobs", [END, "id"])
    op.create_index("ix_jobs_by_project", "jobs", ["project", "created_at", "id"])
    op.create_index("ix_jobs_by_user", "jobs", ["user", "created_at", "id"])
    op.create_index(
        "ix_jobs_by_label", "jobs", ["labels"], postgresql_using="gin", postgresql_ops={"labels": "jsonb_path_ops"}
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("caller", sa.LargeBinary(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("location", sa.Text()),
        sa.Column("media_type", sa.Text()),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("caller", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"])


def downgrade() -> None:
    op.drop_table("idempotency_keys")
    for name in ("label", "user", "project", "end", "status", "name"):
        op.drop_index(f"ix_jobs_by_{name}", "jobs")
    op.create_index("ix_jobs_project", "jobs", ["project"])
    op.drop_constraint(op.f("fk_jobs_forked_from"), "jobs", type_="foreignkey")
    for name in ("notes", "forked_from", "forked_step"):
        op.drop_column("jobs", name)
