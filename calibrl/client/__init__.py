"""The Python client of the service: typed, synchronous, and safe to share between threads.

with Client() as client:                       # CALIBRL_API_URL and CALIBRL_API_KEY, or the running local stack
    job = client.submit({"kind": "train", ...})
    print(job.wait().status)
    frame = job.metrics().to_pandas()
"""

import httpx

from calibrl.client.access import Access
from calibrl.client.address import STACK_FILE, Stack, read_stack
from calibrl.client.connection import checked
from calibrl.client.curves import Curves, Metrics
from calibrl.client.data import Data
from calibrl.client.errors import CalibrlError
from calibrl.client.evaluations import Evaluations
from calibrl.client.job import Job
from calibrl.client.jobs import Jobs
from calibrl.client.live import Live, Streams
from calibrl.client.projects import Projects
from calibrl.client.queue import Queue
from calibrl.client.runs import Runs
from calibrl.client.webhooks import Webhooks
from calibrl.schemas import Health

__all__ = ["STACK_FILE", "CalibrlError", "Client", "Job", "Live", "Metrics", "Stack", "read_stack"]


class Client(Jobs, Runs, Curves, Streams, Evaluations, Data, Queue, Projects, Access, Webhooks):
    """The service's REST API. Every method raises `CalibrlError` where it can't do what it says.

    `url` and `api_key` default to those of the profile that CALIBRL_PROFILE names, else to CALIBRL_API_URL and
    CALIBRL_API_KEY, and those to the running local stack's; with `data_dir`, to the stack that runs on that folder.
    """

    def ready(self) -> Health:
        """Whether the service reaches what it needs; `ok` False is an answer, not an error."""
        response = self._once("GET", "/readyz")
        if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return self._parsed(Health, response)
        return self._parsed(Health, checked(response))
