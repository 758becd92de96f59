"""Job with a reference to its client: `job.wait()`, `job.metrics().to_pandas()`."""

from typing import TYPE_CHECKING, Any, Self

from pydantic import PrivateAttr

from calibrl import schemas
from calibrl.client.errors import CalibrlError
from calibrl.client.notebook import job_html

if TYPE_CHECKING:
    from calibrl.client import Client
    from calibrl.client.metrics import Metrics


class Job(schemas.Job):
    """State of a job when it was read. Methods raise `CalibrlError` if the request fails."""

    _client: "Client | None" = PrivateAttr(None)

    def model_post_init(self, context: Any) -> None:
        """Store the client that parsed this job."""
        self._client = context

    @property
    def client(self) -> "Client":
        """Client that read this job.

        Raises:
            CalibrlError: the job was not read through a client.
        """
        if self._client is None:
            raise CalibrlError("this job was not read through a client: ask one for it with `client.job(id)`")
        return self._client

    def refresh(self) -> Self:
        """Read the job again and update this object."""
        return self._take(self.client.job(self.id))

    def cancel(self) -> Self:
        """Cancel the job. Refused (409) if it has ended."""
        return self._take(self.client.cancel(self.id))

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until the job ends, at most `timeout` seconds (then CalibrlError); None: without limit."""
        return self._take(self.client.wait(self.id, timeout))

    def metrics(self, names: list[str] | None = None) -> "Metrics":
        """Return metrics per step, read on demand; all names, or the given ones."""
        return self.client.all_metrics(self.id, names)

    def _repr_html_(self) -> str:
        return job_html(self)

    def _take(self, state: schemas.Job) -> Self:
        for name in schemas.Job.model_fields:
            setattr(self, name, getattr(state, name))
        return self
