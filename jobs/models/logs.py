"""A job's log, in the pieces it was shipped in; bytes, because a piece may end inside a character."""

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, JobKey


class LogChunk(Base):
    """`start` is the chunk's distance from the log's beginning, in bytes."""

    __tablename__ = "log_chunks"

    job_id: Mapped[JobKey]
    start: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    data: Mapped[bytes]
