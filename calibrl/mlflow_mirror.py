"""Copies a job to an MLflow run: spec as parameters, metrics per step, end. Needs the extra `mlflow`.

Tags of the run record after each batch what it contains, so that the next call continues there. MLflow cannot delete
metrics: if the job went back to an earlier checkpoint, the run is deleted and created again.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx

from calibrl.client import CalibrlError, Client
from calibrl.extras import require
from calibrl.schemas import Job, JobStatus, MetricRow

JOB, STEP, TIME = "calibrl.job", "calibrl.last_step", "calibrl.last_ts"  # tags
ANSWER_SECONDS = 5.0
BATCH = 1000  # maximum number of metrics per request to MLflow
PARAMETERS = 100  # maximum number of parameters per request
LONGEST = 250, 6000  # characters of the name and of the value of a parameter
ENDS = {JobStatus.SUCCEEDED: "FINISHED", JobStatus.FAILED: "FAILED", JobStatus.CANCELLED: "KILLED"}
_NO_NAME = re.compile(r"[^\w. /:\-]", re.ASCII)


class Mirror:
    """Keeps an MLflow run equal to a job.

    Raises:
        CalibrlError: MLflow refuses a request or is unreachable.
    """

    def __init__(self, client: Client, job_id: UUID, uri: str, experiment: str) -> None:
        require("mlflow", "calibrl export mlflow")
        from mlflow import MlflowClient

        self._client, self._job_id, self._experiment = client, job_id, experiment
        _check_server(uri)
        with _explained(uri):
            self._mlflow = MlflowClient(tracking_uri=uri)

    def update(self) -> tuple[str, int, bool]:
        """Update the run. Return its id, the number of new steps, and whether the job has ended."""
        job = self._client.job(self._job_id)  # read first: the last metrics are then read as well
        with _explained(self._experiment):
            run = self._run(job)
            rows = self._new_rows(run)
            if rows is None:
                self._mlflow.delete_run(run.info.run_id)
                run = self._begun(job)
                rows = iter(self._client.all_metrics(job.id))
            steps = self._log(run.info.run_id, rows)
            if job.status.final:
                self._mlflow.set_terminated(run.info.run_id, ENDS[job.status])
            elif run.info.status != "RUNNING":  # the job was retried
                self._mlflow.update_run(run.info.run_id, status="RUNNING")
        return run.info.run_id, steps, job.status.final

    def _run(self, job: Job) -> Any:
        experiment = self._mlflow.get_experiment_by_name(self._experiment)
        if experiment is None:
            return self._begun(job)
        runs = self._mlflow.search_runs([experiment.experiment_id], f"tags.`{JOB}` = '{job.id}'", max_results=1)
        return runs[0] if runs else self._begun(job)

    def _begun(self, job: Job) -> Any:
        experiment = self._mlflow.get_experiment_by_name(self._experiment)
        id = experiment.experiment_id if experiment else self._mlflow.create_experiment(self._experiment)
        tags = {JOB: str(job.id), "calibrl.project": job.project, "mlflow.user": job.user}
        run = self._mlflow.create_run(id, tags=tags, run_name=job.name)
        for part in _parts(list(_parameters(job.spec)), PARAMETERS):
            self._mlflow.log_batch(run.info.run_id, params=part)
        return run

    def _new_rows(self, run: Any) -> Iterator[MetricRow] | None:
        """Return the rows that the run does not have; None if the run has steps that the job took back."""
        tags = run.data.tags
        if STEP not in tags:
            return iter(self._client.all_metrics(self._job_id))
        step = int(tags[STEP])
        rows = iter(self._client.all_metrics(self._job_id, after_step=step - 1))
        last = next(rows, None)
        known = last is not None and (last.step, last.ts.isoformat()) == (step, tags[TIME])
        return rows if known else None

    def _log(self, run_id: str, rows: Iterator[MetricRow]) -> int:
        from mlflow.entities import Metric, RunTag

        steps = 0
        metrics: list[Any] = []
        last: list[Any] = []
        for row in rows:
            if metrics and len(metrics) + len(row.values) > BATCH:
                self._send(run_id, metrics, last)
                metrics = []
            time = int(row.ts.timestamp() * 1000)
            metrics += [Metric(_name(name), float(value), time, row.step) for name, value in row.values.items()]
            last = [RunTag(STEP, str(row.step)), RunTag(TIME, row.ts.isoformat())]
            steps += 1
        if metrics:
            self._send(run_id, metrics, last)
        return steps

    def _send(self, run_id: str, metrics: list[Any], last: list[Any]) -> None:
        for part in _parts(metrics, BATCH):
            self._mlflow.log_batch(run_id, metrics=part)
        self._mlflow.log_batch(run_id, tags=last)  # last: a batch that was sent without the tags is sent again


def _check_server(uri: str) -> None:
    """Check that a server answers: MLflow itself tries for minutes.

    Raises:
        CalibrlError: no server answers.
    """
    if not uri.startswith(("http://", "https://")):
        return
    try:
        httpx.get(uri, timeout=ANSWER_SECONDS)
    except httpx.TransportError as error:
        raise CalibrlError(f"nothing answers at {uri}: start MLflow there, or correct the address") from error


@contextmanager
def _explained(request: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise CalibrlError(f"MLflow refused the request ({request}): {error}") from error


def _parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    yield from (items[first : first + size] for first in range(0, len(items), size))


def _name(name: str) -> str:
    """Return the name of a metric with the characters that MLflow allows."""
    return _NO_NAME.sub("_", name)[: LONGEST[0]]


def _parameters(spec: dict[str, Any]) -> Iterator[Any]:
    """Yield the fields of a spec by path: `algorithm.clip_low`."""
    from mlflow.entities import Param

    def walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            yield from walk(item, f"{path}.{key}" if path else str(key))
        if not items:
            yield path, value

    for path, value in walk(spec, ""):
        yield Param(_name(path), str(value)[: LONGEST[1]])
