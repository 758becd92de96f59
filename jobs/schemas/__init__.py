"""The contract of the service: what a client posts, and what it reads back. Pydantic only; no database, no torch."""

from jobs.schemas.base import MONTH, MOST, Label, Name, Page, Priority, Record, Slug
from jobs.schemas.health import Health
from jobs.schemas.jobs import Event, Job, JobChanges
from jobs.schemas.live import LIVE, Ended, Frame, LogPiece, Rewound, Several
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
    "LIVE",
    "MONTH",
    "MOST",
    "Checkpoint",
    "Drain",
    "Ended",
    "EvaluateSpec",
    "Event",
    "Frame",
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
    "LogPiece",
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
    "Rewound",
    "Sample",
    "SampleSummary",
    "Several",
    "Slug",
    "TrainSpec",
    "Usage",
    "WaitReason",
    "Worker",
    "WorkerStatus",
    "job_spec_adapter",
]
