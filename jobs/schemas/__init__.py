"""The contract of the service: what a client posts, and what it reads back. Pydantic only; no database, no torch."""

from jobs.schemas.base import MONTH, MOST, Label, Name, Page, Priority, Record, Slug
from jobs.schemas.curves import Curves, MetricName, Series
from jobs.schemas.health import Health
from jobs.schemas.jobs import Event, Job, JobChanges
from jobs.schemas.projects import Project, ProjectLimits, ProjectSettings, Usage
from jobs.schemas.queue import QueueEntry, WaitReason
from jobs.schemas.runs import Checkpoint, Histogram, LogChunk, MetricRow, Sample, SampleSummary
from jobs.schemas.specs import (
    EvaluateSpec,
    JobModel,
    JobSettings,
    JobSpec,
    Limits,
    ModelChoice,
    Resources,
    TrainSpec,
    job_spec_adapter,
)
from jobs.schemas.status import JobStatus, Reason
from jobs.schemas.workers import Drain, Gpu, GpuReading, Worker, WorkerStatus

__all__ = [
    "MONTH",
    "MOST",
    "Checkpoint",
    "Curves",
    "Drain",
    "EvaluateSpec",
    "Event",
    "Gpu",
    "GpuReading",
    "Health",
    "Histogram",
    "Job",
    "JobChanges",
    "JobModel",
    "JobSettings",
    "JobSpec",
    "JobStatus",
    "Label",
    "Limits",
    "LogChunk",
    "MetricName",
    "MetricRow",
    "ModelChoice",
    "Name",
    "Page",
    "Priority",
    "Project",
    "ProjectLimits",
    "ProjectSettings",
    "QueueEntry",
    "Reason",
    "Record",
    "Resources",
    "Sample",
    "SampleSummary",
    "Series",
    "Slug",
    "TrainSpec",
    "Usage",
    "WaitReason",
    "Worker",
    "WorkerStatus",
    "job_spec_adapter",
]
