"""Logs of jobs, in the chunks in which they were shipped."""

from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from jobs.models import Job, LogChunk
from jobs.repository import feed

MAX_OFFSET = 2**63 - 1  # largest byte offset


def append(session: Session, job: Job, data: bytes) -> None:
    """Append a chunk to the log of a locked job. Attempts follow each other."""
    session.add(LogChunk(job_id=job.id, start=job.log_length, data=data))
    feed.changes(session, job.id).extend_log(job.log_length, job.log_length + len(data))
    job.log_length += len(data)
    session.flush()


def read(session: Session, job_id: UUID, *, after: int, limit: int) -> bytes:
    """Return at most `limit` bytes of the log from byte `after` on, up to the first gap."""
    before = select(func.max(LogChunk.start)).where(LogChunk.job_id == job_id, LogChunk.start <= after)
    first = func.coalesce(before.scalar_subquery(), after)
    inside = LogChunk.start.between(first, min(after + limit - 1, MAX_OFFSET))
    query = select(LogChunk.start, LogChunk.data).where(LogChunk.job_id == job_id, inside).order_by(LogChunk.start)
    content = bytearray()
    for start, data in session.execute(query):
        at = after + len(content)
        if start > at:
            break
        content += data[at - start : at - start + limit - len(content)]
    return bytes(content)
