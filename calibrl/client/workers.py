"""Machines."""

from calibrl.client.connection import MOST, Connection, path_of
from calibrl.schemas import Page, Worker


class WorkerRequests(Connection):
    """Requests for machines."""

    def workers(self) -> list[Worker]:
        """Return up to 1000 machines, by name."""
        return self._get(Page[Worker], "/v1/workers", limit=MOST).data

    def remove_worker(self, name: str) -> None:
        """Remove a machine that is lost or offline. Refused (409) while it takes jobs or runs one."""
        self._delete(path_of("workers", name))

    def drain(self, name: str, *, now: bool = False) -> Worker:
        """Let a machine start no new jobs. With `now`, also requeue its running jobs, from a checkpoint."""
        return self._send("POST", Worker, path_of("workers", name, "drain"), {"now": now})

    def undrain(self, name: str) -> Worker:
        """Let a drained machine start jobs again. Refused (409) if it is not drained."""
        return self._ask(Worker, path_of("workers", name, "undrain"))
