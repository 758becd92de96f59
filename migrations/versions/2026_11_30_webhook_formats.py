"""Add the format of the messages of a webhook."""

import sqlalchemy as sa
from alembic import op

revision: str = "2026_11_30_webhook_formats"
down_revision: str | None = "2026_11_30_alert_rules"

FORMATS = "format IN ('standard', 'slack', 'teams', 'discord', 'email')"


def upgrade() -> None:
    op.add_column("webhooks", sa.Column("format", sa.String(32), server_default="standard", nullable=False))
    op.create_check_constraint("ck_webhooks_format", "webhooks", FORMATS)


def downgrade() -> None:
    op.drop_column("webhooks", "format")
