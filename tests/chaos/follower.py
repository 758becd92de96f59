"""A client that follows a job's curve by cursor, as the dashboard does, through all failures of the API."""

import threading
import time
from uuid import UUID

from calibrl.client import CalibrlError, Client
from tests.support.waiting import LIMIT_SECONDS

POLL_SECONDS = 0.05


class Follower(threading.Thread):
    """Follows until the job has ended."""

    def __init__(self, client: Client, job_id: UUID) -> None:
        super().__init__(name="follower", daemon=True)
        self._client, self._id = client, job_id
        self._steps: list[int] = []
        self._broken = 0
        self._ended = False

    def run(self) -> None:
        deadline = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < deadline and not self._ended:
            try:
                final = self._client.job(
                    self._id
                ).status.final  # read first: the curve read afterwards is then complete
                rows = self._client.metrics(self._id, after_step=self._steps[-1] if self._steps else 0).data
                self._steps += [row.step for row in rows]
                self._ended = final and not rows
            except CalibrlError:
                self._broken += 1
            time.sleep(POLL_SECONDS)

    def result(self, steps: int) -> list[str]:
        """Return the faults of the received data; waits until the job has ended."""
        self.join(LIMIT_SECONDS)
        self._client.close()
        if not self._ended:
            return ["the follower did not get to the job's end"]
        if not self._broken:
            return ["the API was always reachable: the fault did not affect the follower"]
        return [] if self._steps == list(range(1, steps + 1)) else [f"the follower got steps {self._steps}"]
