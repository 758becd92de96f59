"""The tables, one file a resource. Importing this package registers all of them with `Base.metadata`."""

from jobs.models.attempt import Attempt
from jobs.models.base import Base
from jobs.models.checkpoint import Checkpoint
from jobs.models.event import Event
from jobs.models.histogram import Histogram
from jobs.models.idempotency import IdempotencyKey
from jobs.models.image import Image, JobImage
from jobs.models.job import Job, JobDependency
from jobs.models.log import LogChunk
from jobs.models.metric import Metric
from jobs.models.project import Project
from jobs.models.sample import Sample
from jobs.models.worker import Gpu, Worker

__all__ = [
    "Attempt",
    "Base",
    "Checkpoint",
    "Event",
    "Gpu",
    "Histogram",
    "IdempotencyKey",
    "Image",
    "Job",
    "JobDependency",
    "JobImage",
    "LogChunk",
    "Metric",
    "Project",
    "Sample",
    "Worker",
]
