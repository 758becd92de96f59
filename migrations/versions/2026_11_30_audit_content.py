"""Add what a change in the audit log changed, and which key made a key."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "2026_11_30_audit_content"
down_revision: str | None = "2026_11_30_browser_sessions"


def upgrade() -> None:
    op.add_column("audit", sa.Column("object", sa.Text()))
    op.add_column("audit", sa.Column("before", JSONB(none_as_null=True)))
    op.add_column("audit", sa.Column("after", JSONB(none_as_null=True)))
    op.add_column("api_keys", sa.Column("made_by", sa.Uuid()))
    op.create_foreign_key("fk_api_keys_made_by", "api_keys", "api_keys", ["made_by"], ["id"], ondelete="SET NULL")
    op.create_index("ix_api_keys_made_by", "api_keys", ["made_by"])


def downgrade() -> None:
    op.drop_column("api_keys", "made_by")
    for name in ("after", "before", "object"):
        op.drop_column("audit", name)
