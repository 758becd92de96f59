"""Count the bytes of the samples of a job."""

import sqlalchemy as sa
from alembic import op

revision: str = "2026_11_30_sample_bytes"
down_revision: str | None = "2026_11_30_delays"

COUNT = """
UPDATE jobs SET sample_bytes = kept.bytes
FROM (
    SELECT job_id, sum(bytes)::bigint AS bytes FROM (
        SELECT job_id, bytes FROM samples
        UNION ALL
        SELECT job_id, length(png) FROM job_images JOIN images USING (sha256)
    ) AS of_all GROUP BY job_id
) AS kept
WHERE kept.job_id = jobs.id
"""


def upgrade() -> None:
    op.add_column("jobs", sa.Column("sample_bytes", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute(COUNT)


def downgrade() -> None:
    op.drop_column("jobs", "sample_bytes")
