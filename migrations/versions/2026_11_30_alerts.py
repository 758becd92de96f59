"""Give the events of health rules their fields."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "2026_11_30_alerts"
down_revision: str | None = "2026_11_30_study_order"

FIELDS = """
UPDATE events SET alert = jsonb_build_object(
    'rule', found[1], 'state', found[2], 'step', found[3]::bigint,
    'message', found[4], 'suggestion', coalesce(found[5], '')
) FROM (
    SELECT id AS of_event,
        regexp_match(message, '^(\\w+) (fired|cleared) at step (\\d+): (.*?)\\.(?: (.*))?$') AS found
    FROM events WHERE type = 'health'
) AS parsed WHERE id = of_event AND found IS NOT NULL
"""


def upgrade() -> None:
    op.add_column("events", sa.Column("alert", postgresql.JSONB(none_as_null=True), nullable=True))
    op.execute(FIELDS)


def downgrade() -> None:
    op.drop_column("events", "alert")
