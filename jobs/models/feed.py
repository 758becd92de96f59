"""The feed: what changed in a job, a row a transaction, in the order of the commits."""

from typing import Any

from sqlalchemy import BigInteger, Identity, Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, JobKey


class Feed(Base):
    """`cursor` counts a job's rows without a gap. `parts` names what changed; the content stands in its own tables.

    `xid` is the transaction's number: of rows below every running transaction's none can come later any more.
    """

    __tablename__ = "feed"
    __table_args__ = (Index(None, "xid", "id"),)

    job_id: Mapped[JobKey]
    cursor: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    id: Mapped[int] = mapped_column(BigInteger, Identity())
    xid: Mapped[int] = mapped_column(BigInteger, server_default=text("pg_current_xact_id()::text::bigint"))
    parts: Mapped[list[Any]] = mapped_column(JSONB)
