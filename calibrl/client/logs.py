"""Logs of jobs."""

from collections.abc import Iterator

from calibrl.client.connection import Connection, JobId, job_path
from calibrl.schemas import LogChunk


class LogRequests(Connection):
    """Requests for logs of jobs."""

    def log(self, id: JobId, *, after: int = 0) -> LogChunk:
        """Return the log from byte `after`. The next call passes `after=chunk.next`."""
        return self._get(LogChunk, job_path(id, "log"), after=after)

    def whole_log(self, id: JobId) -> Iterator[bytes]:
        """Yield the log from its first byte to its current end, in pieces."""
        after = 0
        while (chunk := self.log(id, after=after)).next > after:
            yield chunk.text.encode()
            after = chunk.next
