"""What people ask of jobs."""

from collections.abc import Mapping
from typing import Any

import httpx

from calibrl.client.connection import Connection, JobId, job_path
from calibrl.client.job import Job
from jobs.schemas import EvaluateSpec, Event, JobStatus, Page, Priority, TrainSpec

SUBMIT_TIMEOUT = httpx.Timeout(120.0, connect=3.0)  # the service looks into the spec's data files first


class Jobs(Connection):
    """What people ask of jobs."""

    def submit(self, spec: Mapping[str, Any] | TrainSpec | EvaluateSpec) -> Job:
        """Post a job; a refused spec's error names each field."""
        return self._send("POST", Job, "/v1/jobs", spec, timeout=SUBMIT_TIMEOUT)

    def job(self, id: JobId) -> Job:
        """One job, as it stands."""
        return self._get(Job, job_path(id))

    def jobs(
        self,
        *,
        status: JobStatus | str | None = None,
        kind: str | None = None,
        project: str | None = None,
        after: JobId | None = None,
        limit: int = 100,
    ) -> Page[Job]:
        """Jobs, newest first; `after` is the id of the last one seen."""
        return self._get(Page[Job], "/v1/jobs", status=status, kind=kind, project=project, after=after, limit=limit)

    def cancel(self, id: JobId) -> Job:
        """Ask a job to stop; a job that has ended is refused (status 409)."""
        return self._ask(Job, job_path(id, "cancel"))

    def pause(self, id: JobId) -> Job:
        """Hold a job; one that runs writes a checkpoint first (`pausing`). One that has ended is refused (409)."""
        return self._ask(Job, job_path(id, "pause"))

    def resume(self, id: JobId) -> Job:
        """Put a paused job back in line, to go on from its last checkpoint; any other is refused (409)."""
        return self._ask(Job, job_path(id, "resume"))

    def retry(self, id: JobId) -> Job:
        """Run a failed or cancelled job again, from its last checkpoint; any other is refused (409)."""
        return self._ask(Job, job_path(id, "retry"))

    def prioritise(self, id: JobId, priority: Priority) -> Job:
        """Give a job another priority class; a job that has ended is refused (409)."""
        return self._send("PATCH", Job, job_path(id), {"priority": priority})

    def events(self, id: JobId, *, after: int = 0, limit: int = 100) -> Page[Event]:
        """What happened to the job, in ascending id."""
        return self._get(Page[Event], job_path(id, "events"), after=after, limit=limit)
