"""Add the feed: changes of jobs, one row per transaction. Existing data of jobs is added in pieces."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "2026_11_24_feed"
down_revision: str | None = "2026_11_24_curves"

# As the service itself cuts what it writes: at most 100 steps or ids, or 64 KiB of a log, in a row.
WHAT_THERE_IS = """
    WITH pieces AS (
        SELECT job_id, 1 AS kind, min(id) AS place, jsonb_build_array('events', min(id), max(id)) AS part
            FROM events GROUP BY job_id, id / 100
        UNION ALL SELECT job_id, 2, min(step), jsonb_build_array('metrics', min(step), max(step))
            FROM metrics GROUP BY job_id, step / 100
        UNION ALL SELECT job_id, 3, min(step),
                jsonb_build_array('histograms', min(step), max(step), jsonb_agg(DISTINCT name))
            FROM histograms GROUP BY job_id, step / 100
        UNION ALL SELECT job_id, 4, min(id), jsonb_build_array('samples', min(id), max(id))
            FROM samples GROUP BY job_id, id / 100
        UNION ALL SELECT DISTINCT job_id, 5, 0, jsonb_build_array('checkpoints') FROM checkpoints
        UNION ALL SELECT id, 6, start, jsonb_build_array('log', start, least(start + 65536, log_length))
            FROM jobs CROSS JOIN LATERAL generate_series(0, log_length - 1, 65536) AS start
    )
    INSERT INTO feed (job_id, cursor, parts)
        SELECT job_id, row_number() OVER (PARTITION BY job_id ORDER BY kind, place), jsonb_build_array(part)
        FROM pieces ORDER BY job_id, kind, place
"""


def upgrade() -> None:
    op.add_column("jobs", sa.Column("feed", sa.BigInteger(), server_default="0", nullable=False))
    xid = sa.text("pg_current_xact_id()::text::bigint")
    op.create_table(
        "feed",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("xid", sa.BigInteger(), server_default=xid, nullable=False),
        sa.Column("parts", postgresql.JSONB(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_feed_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "cursor", name=op.f("pk_feed")),
    )
    op.execute(WHAT_THERE_IS)
    op.execute("UPDATE jobs SET feed = (SELECT count(*) FROM feed WHERE feed.job_id = jobs.id)")
    op.create_index(op.f("ix_feed_xid_id"), "feed", ["xid", "id"])


def downgrade() -> None:
    op.drop_table("feed")
    op.drop_column("jobs", "feed")
