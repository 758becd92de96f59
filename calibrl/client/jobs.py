"""Submit, find and change jobs."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from calibrl.client import lookup
from calibrl.client.connection import JobId, job_path
from calibrl.client.datasets import DatasetRequests
from calibrl.client.job import Job
from calibrl.schemas import (
    AnySpec,
    CheckpointChoice,
    Event,
    JobPlan,
    JobSort,
    JobStatus,
    JobSummary,
    Page,
    Priority,
)
from calibrl.specfile import read_spec, read_specs, with_fields

Spec = Mapping[str, Any] | AnySpec | Path | str  # a path: of its YAML or JSON file
SUBMIT_TIMEOUT = httpx.Timeout(120.0, connect=3.0)  # the service reads the spec's data files first


class JobRequests(DatasetRequests):
    """Submit, find and change jobs."""

    def submit(self, spec: Spec, **fields: Any) -> Job:
        """Submit a job: a spec, or the path of its YAML or JSON file, from whose folder relative paths count. Jobs and
        datasets can be named as in `find_job`. `fields` replace those of the spec: `steps=40`, or by path
        `**{"optimizer.lr": 1e-5}`, as `calibrl submit --set` does.

        Raises:
            CalibrlError: the spec is refused; the error names each field.
            SpecError: the file is invalid, or a path leads nowhere.
        """
        return self._send("POST", Job, "/v1/jobs", self._complete(spec, fields), timeout=SUBMIT_TIMEOUT)

    def submit_pipeline(self, specs: Sequence[Mapping[str, Any]] | Path | str) -> list[Job]:
        """Submit jobs together: specs with different names, or the path of a file with a list of specs. `@name` in
        `from_job` or `depends_on` is an earlier job. Jobs and datasets of the service can be named as
        in `find_job`.

        Raises:
            CalibrlError: a spec is refused; no job is submitted.
            SpecError: the file is invalid.
        """
        read = read_specs(Path(specs), []) if isinstance(specs, Path | str) else specs
        listed = [read] if isinstance(read, Mapping) else read
        pipeline = {"jobs": [self._with_ids(spec) for spec in listed]}
        return self._send("POST", Page[Job], "/v1/pipelines", pipeline, timeout=SUBMIT_TIMEOUT).data

    def plan(self, spec: Spec, **fields: Any) -> JobPlan:
        """Dry run of a spec: defaults, data, memory, queue, warnings. Takes and refuses what `submit` does."""
        return self._send("POST", JobPlan, "/v1/jobs:plan", self._complete(spec, fields), timeout=SUBMIT_TIMEOUT)

    def fork(
        self,
        id: JobId,
        *,
        checkpoint: CheckpointChoice = "best",
        changes: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> Job:
        """Submit the spec of a job again, with a merge patch of changes, from one of its checkpoints."""
        payload = {"checkpoint": checkpoint, "changes": self._with_ids(changes or {}), "name": name}
        return self._send("POST", Job, job_path(id, "fork"), payload, timeout=SUBMIT_TIMEOUT)

    def what_if(
        self,
        id: JobId,
        *,
        checkpoint: CheckpointChoice = "last",
        update: int = 0,
        variants: Mapping[str, Mapping[str, Any]] | None = None,
        name: str | None = None,
    ) -> Job:
        """Submit a what-if of a training: the update after a checkpoint beside those of variants, which are changes of
        the algorithm's settings by name. None: the variants that the algorithm names.
        """
        payload = {"checkpoint": checkpoint, "update": update, "variants": variants, "name": name}
        return self._send("POST", Job, job_path(id, "what-if"), payload, timeout=SUBMIT_TIMEOUT)

    def bisect(self, id: JobId, *, rule: str | None = None, name: str | None = None) -> Job:
        """Submit a bisection of a training: which update made a health rule fire. None: the rule that fired last."""
        return self._send("POST", Job, job_path(id, "bisection"), {"rule": rule, "name": name}, timeout=SUBMIT_TIMEOUT)

    def edit(
        self,
        id: JobId,
        *,
        name: str | None = None,
        labels: Mapping[str, str | None] | None = None,
        notes: str | None = None,
    ) -> Job:
        """Change the name, the labels (None removes one, the others stay) or the notes of a job."""
        fields = {"name": name, "labels": labels, "notes": notes}
        changes = {field: value for field, value in fields.items() if value is not None}
        return self._send("PATCH", Job, job_path(id), changes)

    def job(self, id: JobId) -> Job:
        """Return the current state of a job, which can be named as in `find_job`."""
        return self._get(Job, job_path(id if lookup.is_id(id) else self.find_job(str(id)).id))

    def find_job(self, text: str) -> JobSummary:
        """Return the job that a text names: `latest`, an id, the beginning of one id, or the name of one job.

        Raises:
            CalibrlError: no job, or more than one, matches.
        """
        if lookup.is_id(text):
            return self._get(Job, job_path(text))
        q = None if text == lookup.LATEST else text
        limit = 1 if q is None else 100
        return lookup.find(text, "job", lambda after: self.jobs(q=q, after=after, limit=limit))

    def _complete(self, spec: Spec, changes: Mapping[str, Any]) -> Mapping[str, Any] | AnySpec:
        read = read_spec(Path(spec), []) if isinstance(spec, Path | str) else spec
        if changes:
            whole = read if isinstance(read, Mapping) else read.model_dump(mode="json", exclude_unset=True)
            read = with_fields(whole, changes)
        return self._with_ids(read) if isinstance(read, Mapping) else read

    def _with_ids(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        def job(text: str) -> UUID:
            return self.find_job(text).id

        def dataset(text: str) -> UUID:
            return self.find_dataset(text).id

        complete: dict[str, Any] = lookup.with_ids(spec, job, dataset)
        return complete

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
        ids: Sequence[JobId] = (),
        derived_from: JobId | Sequence[JobId] | None = None,
        fields: Sequence[str] = (),
        sort: JobSort | None = None,
        after: JobId | None = None,
        limit: int = 100,
    ) -> Page[JobSummary]:
        """Return jobs, by default newest first. `after` is the id of the last job of the previous page.

        Filters: any of the statuses, all of the labels, `q` in name or notes or at the start of the id, any of the
        `ids`, and jobs that derive from any of `derived_from`. `fields`: paths of fields of the specs, such as
        `optimizer.lr`, that each job of the answer has in its `fields`.
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
            ids=list(ids),
            derived_from=derived_from,
            fields=list(fields),
            sort=sort,
            after=after,
            limit=limit,
        )

    def cancel(self, id: JobId) -> Job:
        """Cancel a job. Refused (409) if it has ended."""
        return self._ask(Job, job_path(id, "cancel"))

    def pause(self, id: JobId) -> Job:
        """Pause a job. A running job saves a checkpoint first (`pausing`). Refused (409) if it has ended."""
        return self._ask(Job, job_path(id, "pause"))

    def resume(self, id: JobId) -> Job:
        """Queue a paused job again; it continues from its last checkpoint. Refused (409) if it is not paused."""
        return self._ask(Job, job_path(id, "resume"))

    def retry(self, id: JobId) -> Job:
        """Run a failed or cancelled job again, from its last checkpoint. Refused (409) for any other status."""
        return self._ask(Job, job_path(id, "retry"))

    def prioritise(self, id: JobId, priority: Priority) -> Job:
        """Change the priority class of a job. Refused (409) if it has ended."""
        return self._send("PATCH", Job, job_path(id), {"priority": priority})

    def remove(self, id: JobId) -> None:
        """Remove a job that has ended, with its metrics, samples and checkpoints. Refused (409) while a study has it or
        while jobs depend on it.
        """
        self._delete(job_path(id))

    def events(self, id: JobId, *, after: int = 0, limit: int = 100) -> Page[Event]:
        """Return the events of a job, by ascending id."""
        return self._get(Page[Event], job_path(id, "events"), after=after, limit=limit)
