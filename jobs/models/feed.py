"""The feed: changes of jobs, one row per transaction and job, in commit order."""

from typing import Any

from sqlalchemy import BigInteger, Identity, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, JobKey


class Feed(Base):
    """Change of a job. `cursor` counts the rows of a job without gaps. `parts` names the changes; their content is in
    other tables.

    `xid` is the number of the transaction. Rows below the smallest running transaction are complete.
    """

    __tablename__ = "feed"
    __table_args__ = (Index(None, "xid", "id"),)

    job_id: Mapped[JobKey]
    cursor: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    id: Mapped[int] = mapped_column(BigInteger, Identity())
    xid: Mapped[int] = mapped_column(BigInteger, server_default=text("pg_current_xact_id()::text::bigint"))
    parts: Mapped[list[Any]] = mapped_column(JSONB)
