"""The Python client of the service: typed, synchronous, and safe to share between threads.

with Client() as client:                       # CALIBRL_API_URL and CALIBRL_API_KEY, or the running local stack
    job = client.submit({"kind": "train", ...})
    print(job.wait().status)
    frame = job.metrics().to_pandas()
"""

import httpx

from calibrl.client.access import AccessRequests
from calibrl.client.address import STACK_FILE, Stack, read_stack
from calibrl.client.alert_rules import AlertRuleRequests
from calibrl.client.checkpoints import CheckpointRequests
from calibrl.client.connection import checked
from calibrl.client.errors import CalibrlError
from calibrl.client.evaluations import EvaluationRequests
from calibrl.client.hours import HourRequests
from calibrl.client.job import Job
from calibrl.client.jobs import JobRequests
from calibrl.client.live import Live, StreamRequests
from calibrl.client.logs import LogRequests
from calibrl.client.metrics import MetricRequests, Metrics
from calibrl.client.projects import ProjectRequests
from calibrl.client.prompts import PromptRequests
from calibrl.client.queue import QueueRequests
from calibrl.client.reproductions import ReproductionRequests
from calibrl.client.results import ResultRequests
from calibrl.client.samples import SampleRequests
from calibrl.client.saved_views import ViewRequests
from calibrl.client.studies import StudyRequests
from calibrl.client.verdicts import VerdictRequests
from calibrl.client.webhooks import WebhookRequests
from calibrl.client.workers import WorkerRequests
from calibrl.schemas import Health
from calibrl.specfile import SpecError

__all__ = ["STACK_FILE", "CalibrlError", "Client", "Job", "Live", "Metrics", "SpecError", "Stack", "read_stack"]


class Client(
    JobRequests,
    MetricRequests,
    SampleRequests,
    PromptRequests,
    VerdictRequests,
    LogRequests,
    CheckpointRequests,
    ResultRequests,
    ReproductionRequests,
    StreamRequests,
    EvaluationRequests,
    StudyRequests,
    QueueRequests,
    WorkerRequests,
    ProjectRequests,
    HourRequests,
    AccessRequests,
    WebhookRequests,
    AlertRuleRequests,
    ViewRequests,
):
    """Client of the REST API of the service. Each method raises `CalibrlError` if the request fails.

    Defaults of `url` and `api_key`: the profile that CALIBRL_PROFILE names, else CALIBRL_API_URL and CALIBRL_API_KEY,
    else the running local stack. With `data_dir`: the local stack that runs on that folder.
    """

    def ready(self) -> Health:
        """Return the health of the service. `ok` is False if its database or broker is unreachable."""
        response = self._once("GET", "/readyz")
        if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return self._parsed(Health, response)
        return self._parsed(Health, checked(response))
