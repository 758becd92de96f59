"""Objects of OpenAI's API, made from jobs, datasets, events and checkpoints."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from calibrl.schemas import JobStatus
from calibrl.schemas.openai import (
    FileObject,
    FineTuningCheckpoint,
    FineTuningEvent,
    FineTuningJob,
    JobError,
    ModelObject,
)
from jobs import models
from jobs.openai.graders import grader_of
from jobs.openai.names import fine_tuned, id_of, model_name
from jobs.openai.requests import base_group, base_rate, supervised
from jobs.repository.openai_jobs import TrainedJob

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
STATUS: dict[JobStatus, Status] = {
    JobStatus.WAITING: "queued",
    JobStatus.QUEUED: "queued",
    JobStatus.PAUSING: "queued",
    JobStatus.PAUSED: "queued",
    JobStatus.RUNNING: "running",
    JobStatus.CANCELLING: "running",
    JobStatus.SUCCEEDED: "succeeded",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
}
WARNINGS = ("warning", "health")
BUILTIN_MODEL = ModelObject(id="tiny-vlm", created=0, owned_by="calibrl")
MESSAGE_METRICS = ("loss/total", "reward/mean", "validation/accuracy")  # metrics in the message of a step


def file_object(dataset: models.Dataset) -> FileObject:
    """Return an uploaded dataset as a file."""
    return FileObject(
        id=id_of("file", dataset.id),
        bytes=dataset.bytes or 0,
        created_at=_seconds(dataset.created_at),
        filename=f"{dataset.name}.{dataset.format}",
    )


def job_object(job: models.Job, rows: Mapping[UUID, int], seconds_left: float | None) -> FineTuningJob:
    """Return a training job. `rows`: number of rows by dataset, if known. `seconds_left`: estimate, or None."""
    spec, failed = job.spec, job.status is JobStatus.FAILED
    validation = spec.get("validation")
    finish = None if seconds_left is None else int(datetime.now(UTC).timestamp() + seconds_left)
    hyperparameters = _hyperparameters(spec, rows)
    return FineTuningJob(
        id=id_of("ftjob", job.id),
        created_at=_seconds(job.created_at),
        finished_at=_seconds(job.finished_at) if job.finished_at else None,
        estimated_finish=finish if job.status is JobStatus.RUNNING else None,
        status=STATUS[job.status],
        error=JobError(code=str(job.reason or "failed"), message=job.message or "The job failed.") if failed else None,
        model=model_name(spec["model"]),
        fine_tuned_model=fine_tuned(spec["model"], job.name, job.id) if job.status is JobStatus.SUCCEEDED else None,
        organization_id=job.project,
        training_file=_file(_sources(spec)[0]),
        validation_file=_file(validation["data"]) if validation else None,
        result_files=[],
        hyperparameters=hyperparameters,
        method=_method(spec, hyperparameters),
        seed=spec["seed"],
        trained_tokens=None,
        integrations=[],
        metadata=job.labels,
    )


def model_object(job: TrainedJob) -> ModelObject:
    """Return the model of a training job that has succeeded."""
    return ModelObject(
        id=fine_tuned(job.model, job.name, job.id),
        created=_seconds(job.finished_at or job.created_at),
        owned_by=job.project,
    )


def event_object(event: models.Event | models.StepMetrics, steps_total: int | None) -> FineTuningEvent:
    """Return an event of a job, or the metrics of a step."""
    if isinstance(event, models.StepMetrics):
        values = ", ".join(f"{name}={_short(event.values[name])}" for name in MESSAGE_METRICS if name in event.values)
        of = f"/{steps_total}" if steps_total else ""
        return FineTuningEvent(
            id=f"ftmetrics-{event.step}",
            created_at=_seconds(event.ts),
            level="info",
            message=f"Step {event.step}{of}{f': {values}' if values else ''}",
            type="metrics",
            data={"step": event.step, "total_steps": steps_total, **event.values},
        )
    what = event.type.replace("_", " ").capitalize()
    return FineTuningEvent(
        id=f"ftevent-{event.id}",
        created_at=_seconds(event.ts),
        level="error" if event.status is JobStatus.FAILED else "warn" if event.type in WARNINGS else "info",
        message=f"{what}: {event.message}" if event.message else what,
        type="message",
        data={},
    )


def checkpoint_object(job: models.Job, checkpoint: models.Checkpoint) -> FineTuningCheckpoint:
    """Return a checkpoint of a job."""
    return FineTuningCheckpoint(
        id=f"ftckpt-{job.id.hex}-{checkpoint.step}",
        created_at=_seconds(checkpoint.created_at),
        fine_tuning_job_id=id_of("ftjob", job.id),
        fine_tuned_model_checkpoint=fine_tuned(job.spec["model"], job.name, job.id, checkpoint.step),
        step_number=checkpoint.step,
        metrics={"step": checkpoint.step, **checkpoint.metrics},
    )


def dataset_ids(job: models.Job) -> set[UUID]:
    """Return the datasets that a job names."""
    validation = job.spec.get("validation") or {}
    sources = (*_sources(job.spec), validation.get("data", {}))
    return {UUID(source["dataset"]) for source in sources if "dataset" in source}


def _sources(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the sources of a job's training data. OpenAI's objects name the first one only."""
    return spec["data"] if isinstance(spec["data"], list) else [spec["data"]]


def _hyperparameters(spec: Mapping[str, Any], rows: Mapping[UUID, int]) -> dict[str, Any]:
    sources, batch = _sources(spec), spec["prompts_per_step"]
    known = [rows.get(UUID(source["dataset"])) if "dataset" in source else None for source in sources]
    count = None if None in known else sum(number or 0 for number in known)
    return {
        "n_epochs": max(1, round(spec.get("epochs") or spec["steps"] * batch / count)) if count else None,
        "batch_size": batch,
        "learning_rate_multiplier": round(spec["optimizer"]["lr"] / base_rate(spec["algorithm"]["type"]), 6),
    }


def _method(spec: Mapping[str, Any], hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    if supervised(spec["algorithm"]["type"]):
        return {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
    validation = spec.get("validation") or {}
    chosen = {
        **hyperparameters,
        "compute_multiplier": spec["rollout"]["group_size"] / base_group(),
        "eval_interval": validation.get("every_steps"),
        "eval_samples": validation.get("samples"),
        "reasoning_effort": "default",
    }
    return {"type": "reinforcement", "reinforcement": {"grader": _grader(spec), "hyperparameters": chosen}}


def _grader(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the verifiers as a grader. A combination that OpenAI cannot express has the type `calibrl`."""
    kinds = [reward["type"] for reward in spec["rewards"]]
    if len(kinds) == 1 and (grader := grader_of(spec["rewards"][0])) is not None:
        return grader
    if kinds != ["exact"]:
        return {"type": "calibrl", "name": " + ".join(kinds), "rewards": spec["rewards"]}
    return {
        "type": "string_check",
        "name": "exact",
        "input": "{{ sample.output_text }}",
        "reference": f"{{{{ item.{_sources(spec)[0].get('answer') or 'answer'} }}}}",
        "operation": "eq",
    }


def _file(source: Mapping[str, Any]) -> str:
    """Return the id of a dataset as a file; for other data its name."""
    if "dataset" in source:
        return id_of("file", UUID(source["dataset"]))
    if "builtin" in source:
        return f"{source['builtin']}-{source['split']}"
    return str(source.get("path") or source["hub"])


def _short(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else value


def _seconds(time: datetime) -> int:
    return int(time.timestamp())
