"""What people ask of jobs."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import httpx

from calibrl.client.connection import Connection, JobId, job_path
from calibrl.client.job import Job
from calibrl.schemas import (
    CheckpointChoice,
    EvaluateSpec,
    Event,
    JobPlan,
    JobSort,
    JobStatus,
    JobSummary,
    Page,
    Priority,
    TrainSpec,
)

SUBMIT_TIMEOUT = httpx.Timeout(120.0, connect=3.0)  # the service looks into the spec's data files first


class Jobs(Connection):
    """What people ask of jobs."""

    def submit(self, spec: Mapping[str, Any] | TrainSpec | EvaluateSpec) -> Job:
        """Post a job; a refused spec's error names each field."""
        return self._send("POST", Job, "/v1/jobs", spec, timeout=SUBMIT_TIMEOUT)

    def plan(self, spec: Mapping[str, Any] | TrainSpec | EvaluateSpec) -> JobPlan:
        """What would become of a spec: defaults, data, memory, queue, warnings. Refused as `submit` would be."""
        return self._send("POST", JobPlan, "/v1/jobs:plan", spec, timeout=SUBMIT_TIMEOUT)

    def fork(
        self,
        id: JobId,
        *,
        checkpoint: CheckpointChoice = "best",
        changes: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> Job:
        """Add a job that takes up another one's spec, with a merge patch of changes, from a checkpoint of it."""
        given = {"checkpoint": checkpoint, "changes": dict(changes or {}), "name": name}
        return self._send("POST", Job, job_path(id, "fork"), given, timeout=SUBMIT_TIMEOUT)

    def edit(
        self,
        id: JobId,
        *,
        name: str | None = None,
        labels: Mapping[str, str | None] | None = None,
        notes: str | None = None,
    ) -> Job:
        """Change what a job is called, its labels (None removes one, the others stay) or its notes."""
        given = {"name": name, "labels": labels, "notes": notes}
        changes = {field: value for field, value in given.items() if value is not None}
        return self._send("PATCH", Job, job_path(id), changes)

    def job(self, id: JobId) -> Job:
        """One job, as it stands."""
        return self._get(Job, job_path(id))

    def jobs(
        self,
        *,
        status: JobStatus | str | Sequence[JobStatus | str] | None = None,
        kind: str | None = None,
        project: str | None = None,
        user: str | None = None,
        labels: Mapping[str, str] | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        q: str | None = None,
        derived_from: JobId | None = None,
        sort: JobSort | None = None,
        after: JobId | None = None,
        limit: int = 100,
    ) -> Page[JobSummary]:
        """Jobs, newest first unless sorted otherwise; `after` is the id of the last one seen.

        Those of any of the statuses, with all of the labels, with `q` in name or notes or as their id's beginning, and
        that come of the job `derived_from`.
        """
        return self._get(
            Page[JobSummary],
            "/v1/jobs",
            status=status,
            kind=kind,
            project=project,
            user=user,
            label=[f"{key}:{value}" for key, value in (labels or {}).items()],
            created_after=created_after and created_after.isoformat(),
            created_before=created_before and created_before.isoformat(),
            q=q,
            derived_from=derived_from,
            sort=sort,
            after=after,
            limit=limit,
        )

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
