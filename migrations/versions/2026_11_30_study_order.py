"""Keep the order of the arms of a study."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "2026_11_30_study_order"
down_revision: str | None = "2026_11_30_records"


def upgrade() -> None:
    op.alter_column("studies", "spec", type_=sa.JSON(), postgresql_using="spec::json")


def downgrade() -> None:
    op.alter_column("studies", "spec", type_=postgresql.JSONB(), postgresql_using="spec::jsonb")
