"""Add the mean entropy, rareness and gap of groups, shown in lists beside the mean reward."""

import sqlalchemy as sa
from alembic import op

revision: str = "2026_11_24_samples"
down_revision: str | None = "2026_11_24_evaluations"

# Numbers that are not finite are strings in the JSON, and none of these means has them.
FILL = r"""
UPDATE samples SET
  entropy = (SELECT avg(value::text::double precision)
             FROM jsonb_path_query("group", '$.completions[*].entropies[*] ? (@.type() == "number")') AS value),
  rareness = (SELECT avg(abs(value::text::double precision))
              FROM jsonb_path_query("group", '$.completions[*].advantage ? (@.type() == "number")') AS value),
  gap = (SELECT avg(value::text::double precision)
         FROM jsonb_path_query("group", '$.completions[*].gaps[*] ? (@.type() == "number")') AS value)
"""


def upgrade() -> None:
    op.add_column("samples", sa.Column("entropy", sa.Double()))
    op.add_column("samples", sa.Column("rareness", sa.Double()))
    op.add_column("samples", sa.Column("gap", sa.Double()))
    op.execute(FILL)


def downgrade() -> None:
    op.drop_column("samples", "gap")
    op.drop_column("samples", "rareness")
    op.drop_column("samples", "entropy")
