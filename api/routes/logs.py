"""A job's log."""

import codecs
from typing import Annotated

from fastapi import APIRouter, Query

from api.deps import MAX_ID, Db, ExistingJob
from calibrl.schemas import LogChunk
from jobs.repository import logs

router = APIRouter(prefix="/jobs/{job_id}/log", tags=["runs"])


@router.get("")
def read_log(
    session: Db,
    job: ExistingJob,
    after: Annotated[int, Query(ge=0, le=MAX_ID, description="Offset in bytes: `next` of the previous response.")] = 0,
    limit_bytes: Annotated[
        int, Query(ge=16, le=1_000_000, description="Maximum number of bytes in the response.")
    ] = 65_536,
) -> LogChunk:
    """Return a part of the log. `next` does not change if nothing was added."""
    data = logs.read(session, job.id, after=after, limit=limit_bytes)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    unfinished = len(decoder.getstate()[0])  # bytes of a character that ends in the next piece
    return LogChunk(text=text, next=after + len(data) - unfinished)
