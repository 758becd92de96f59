"""A job that knows the client that it came from: `job.wait()`, `job.metrics().to_pandas()`."""

from typing import TYPE_CHECKING, Any, Self

from pydantic import PrivateAttr

from calibrl import schemas
from calibrl.client.errors import CalibrlError

if TYPE_CHECKING:
    from calibrl.client import Client
    from calibrl.client.curves import Metrics


class Job(schemas.Job):
    """A job as it stood when it was read. Its methods raise `CalibrlError` where they can't do what they say."""

    _client: "Client | None" = PrivateAttr(None)

    def model_post_init(self, context: Any) -> None:
        """Keep the client that has parsed this."""
        self._client = context

    @property
    def client(self) -> "Client":
        """The client that it came from. Raises CalibrlError for a job that was not read through one."""
        if self._client is None:
            raise CalibrlError("this job was not read through a client: ask one for it with `client.job(id)`")
        return self._client

    def refresh(self) -> Self:
        """Read it again; this very object then says how it stands now."""
        return self._take(self.client.job(self.id))

    def cancel(self) -> Self:
        """Ask it to stop; one that has ended is refused (status 409)."""
        return self._take(self.client.cancel(self.id))

    def wait(self, timeout: float | None = None) -> Self:
        """Wait for its end, at most `timeout` seconds (then CalibrlError); None: as long as it takes."""
        return self._take(self.client.wait(self.id, timeout))

    def metrics(self, names: list[str] | None = None) -> "Metrics":
        """Its metrics by step, read when they are asked for; all names, or those given."""
        return self.client.all_metrics(self.id, names)

    def _take(self, now: schemas.Job) -> Self:
        for name in schemas.Job.model_fields:
            setattr(self, name, getattr(now, name))
        return self
