"""The contract of the service: what a client posts, and what it reads back. Pydantic only; no database, no torch."""

from jobs.schemas.base import MONTH, MOST, Label, Name, Page, Priority, Record, Slug
from jobs.schemas.health import Health
from jobs.schemas.jobs import MOST_LABELS, Event, Fork, Job, JobChanges, JobFilter, JobSort, JobSummary
from jobs.schemas.plans import DataFacts, JobPlan, MemoryPart, MemoryPlan, Notice, QueuePlan
from jobs.schemas.projects import Project, ProjectLimits, ProjectSettings, Usage
from jobs.schemas.queue import QueueEntry, WaitReason
from jobs.schemas.runs import Checkpoint, Histogram, LogChunk, MetricRow, Sample, SampleSummary
from jobs.schemas.specs import (
    CheckpointChoice,
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
    "MOST_LABELS",
    "Checkpoint",
    "CheckpointChoice",
    "DataFacts",
    "Drain",
    "EvaluateSpec",
    "Event",
    "Fork",
    "Gpu",
    "GpuReading",
    "Health",
    "Histogram",
    "Job",
    "JobChanges",
    "JobFilter",
    "JobModel",
    "JobPlan",
    "JobSettings",
    "JobSort",
    "JobSpec",
    "JobStatus",
    "JobSummary",
    "Label",
    "Limits",
    "LogChunk",
    "MemoryPart",
    "MemoryPlan",
    "MetricRow",
    "ModelChoice",
    "Name",
    "Notice",
    "Page",
    "Priority",
    "Project",
    "ProjectLimits",
    "ProjectSettings",
    "QueueEntry",
    "QueuePlan",
    "Reason",
    "Record",
    "Resources",
    "Sample",
    "SampleSummary",
    "Slug",
    "TrainSpec",
    "Usage",
    "WaitReason",
    "Worker",
    "WorkerStatus",
    "job_spec_adapter",
]
