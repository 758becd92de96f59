"""Who waits and why, and the machines."""

from calibrl.client.connection import MOST, Connection, path_of
from calibrl.schemas import Page, QueueEntry, Worker


class Queue(Connection):
    """Who waits and why, and the machines."""

    def queue(self, project: str | None = None) -> list[QueueEntry]:
        """The jobs that have not started, those in line first: why each waits, and when it may start."""
        return self._get(Page[QueueEntry], "/v1/queue", project=project).data

    def workers(self) -> list[Worker]:
        """The machines that run jobs, by name, at most a thousand."""
        return self._get(Page[Worker], "/v1/workers", limit=MOST).data

    def drain(self, name: str, *, now: bool = False) -> Worker:
        """Have a machine take no more jobs; with `now`, also give back what it runs, from a checkpoint."""
        return self._send("POST", Worker, path_of("workers", name, "drain"), {"now": now})

    def undrain(self, name: str) -> Worker:
        """Have a drained machine take jobs again; one that is not drained is refused (409)."""
        return self._ask(Worker, path_of("workers", name, "undrain"))
