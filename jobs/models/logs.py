"""Log of a job in the chunks in which it was shipped. Bytes, because a chunk can end inside a character."""

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from jobs.models.base import Base, JobKey


class LogChunk(Base):
    """Part of a log. `start`: offset from the beginning of the log in bytes."""

    __tablename__ = "log_chunks"

    job_id: Mapped[JobKey]
    start: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    data: Mapped[bytes]
