"""Add views of the dashboard that users save by name."""

import sqlalchemy as sa
from alembic import op

revision: str = "2026_11_30_saved_views"
down_revision: str | None = "2026_11_30_webhook_formats"

NOW = sa.text("clock_timestamp()")


def upgrade() -> None:
    op.create_table(
        "saved_views",
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(["user"], ["users.name"], name="fk_saved_views_user", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user", "name", name="pk_saved_views"),
    )


def downgrade() -> None:
    op.drop_table("saved_views")
