"""Waiting jobs."""

from calibrl.client.connection import Connection
from calibrl.schemas import Page, QueueEntry


class QueueRequests(Connection):
    """Requests for waiting jobs."""

    def queue(self, project: str | None = None) -> list[QueueEntry]:
        """Return the jobs that have not started, queued ones first, with reason and expected start."""
        return self._get(Page[QueueEntry], "/v1/queue", project=project).data
