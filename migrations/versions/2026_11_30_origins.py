"""Add the jobs from which a job derives."""

import sqlalchemy as sa
from alembic import op

revision: str = "2026_11_30_origins"
down_revision: str | None = "2026_11_30_queue_columns"

FILL = """
INSERT INTO job_origins (job_id, from_id)
SELECT found.job_id, found.from_id
FROM (
    SELECT id AS job_id, forked_from AS from_id FROM jobs WHERE forked_from IS NOT NULL
    UNION
    SELECT job_id, depends_on_id FROM job_dependencies
    UNION
    SELECT jobs.id, (named #>> '{}')::uuid
    FROM jobs, jsonb_path_query(spec, '$.**.from_job ? (@.type() == "string")') AS named
    WHERE named #>> '{}' ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
) AS found
JOIN jobs AS origin ON origin.id = found.from_id
ON CONFLICT DO NOTHING
"""


def upgrade() -> None:
    op.create_table(
        "job_origins",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("from_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_origins_job_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["from_id"], ["jobs.id"], name="fk_job_origins_from_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "from_id", name="pk_job_origins"),
    )
    op.create_index("ix_job_origins_from_id", "job_origins", ["from_id"])
    op.execute(FILL)


def downgrade() -> None:
    op.drop_table("job_origins")
