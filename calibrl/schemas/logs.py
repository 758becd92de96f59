"""Log of a job."""

from calibrl.schemas.base import Record


class LogChunk(Record):
    """A part of the log. `next` is the offset of its end in bytes; send it as `after` for the following part."""

    text: str
    next: int
