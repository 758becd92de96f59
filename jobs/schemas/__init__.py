"""The contract of the service: what a client posts, and what it reads back. Pydantic only; no database, no torch."""

from jobs.schemas.base import MONTH, MOST, Label, Name, Page, Priority, Record, Slug
from jobs.schemas.datasets import Dataset, HubDataset, PreviewRow, UploadOptions
from jobs.schemas.health import Health
from jobs.schemas.jobs import Event, Job, JobChanges
from jobs.schemas.projects import Project, ProjectLimits, ProjectSettings, Usage
from jobs.schemas.queue import QueueEntry, WaitReason
from jobs.schemas.runs import (
    Checkpoint,
    CheckpointFiles,
    Histogram,
    LogChunk,
    MetricRow,
    Sample,
    SampleSummary,
    StoredFile,
)
from jobs.schemas.specs import (
    DataChoice,
    EvaluateSpec,
    JobModel,
    JobSettings,
    JobSpec,
    KnownData,
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
    "CheckpointFiles",
    "DataChoice",
    "Dataset",
    "Drain",
    "EvaluateSpec",
    "Event",
    "Gpu",
    "GpuReading",
    "Health",
    "Histogram",
    "HubDataset",
    "Job",
    "JobChanges",
    "JobModel",
    "JobSettings",
    "JobSpec",
    "JobStatus",
    "KnownData",
    "Label",
    "Limits",
    "LogChunk",
    "MetricRow",
    "ModelChoice",
    "Name",
    "Page",
    "PreviewRow",
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
    "Slug",
    "StoredFile",
    "TrainSpec",
    "UploadOptions",
    "Usage",
    "WaitReason",
    "Worker",
    "WorkerStatus",
    "job_spec_adapter",
]
