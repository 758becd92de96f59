"""Add blocks of 32 steps per metric, so that a long curve reads quickly."""

import sqlalchemy as sa
from alembic import op

revision: str = "2026_11_24_curves"
down_revision: str | None = "2026_11_24_datasets"

# `values` are numbers, and the strings NaN, Infinity and -Infinity. From 1e295 on they count as not finite.
FILL = """
INSERT INTO metric_blocks
SELECT job_id, name, step & -32, min(step), max(step), max(ts),
  count(*) FILTER (WHERE abs(value) < 1e295), count(*) - count(*) FILTER (WHERE abs(value) < 1e295),
  min(value) FILTER (WHERE abs(value) < 1e295), max(value) FILTER (WHERE abs(value) < 1e295),
  sum(value) FILTER (WHERE abs(value) < 1e295),
  (max(ARRAY[step::double precision, value]) FILTER (WHERE abs(value) < 1e295))[2]
FROM (
  SELECT job_id, step, ts, each.key AS name, each.value::double precision AS value
  FROM metrics, jsonb_each_text(values) AS each OFFSET 0
) AS points
WHERE value IS NOT NULL
GROUP BY job_id, name, step & -32
"""


def upgrade() -> None:
    op.create_table(
        "metric_blocks",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("first_step", sa.Integer(), nullable=False),
        sa.Column("last_step", sa.Integer(), nullable=False),
        sa.Column("ts", sa.DateTime(timezone=True), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("non_finite", sa.Integer(), nullable=False),
        sa.Column("min", sa.Double()),
        sa.Column("max", sa.Double()),
        sa.Column("sum", sa.Double()),
        sa.Column("last", sa.Double()),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_metric_blocks_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "name", "start", name=op.f("pk_metric_blocks")),
    )
    op.execute(FILL)


def downgrade() -> None:
    op.drop_table("metric_blocks")
