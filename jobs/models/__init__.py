"""The tables, one file a resource. Importing this package registers all of them with `Base.metadata`."""

from jobs.models.access import ApiKey, AuditEntry, Membership, User
from jobs.models.accuracies import Accuracies
from jobs.models.attempt import Attempt
from jobs.models.base import Base
from jobs.models.checkpoint import Checkpoint
from jobs.models.dataset import Dataset, JobDataset
from jobs.models.event import Event
from jobs.models.feed import Feed
from jobs.models.histogram import Histogram
from jobs.models.idempotency import IdempotencyKey
from jobs.models.image import Image, JobImage
from jobs.models.job import Job, JobDependency
from jobs.models.log import LogChunk
from jobs.models.metric import Metric, MetricBlock
from jobs.models.project import Project
from jobs.models.sample import Sample
from jobs.models.webhook import Delivery, Webhook
from jobs.models.worker import Gpu, Worker

__all__ = [
    "Accuracies",
    "ApiKey",
    "Attempt",
    "AuditEntry",
    "Base",
    "Checkpoint",
    "Dataset",
    "Delivery",
    "Event",
    "Feed",
    "Gpu",
    "Histogram",
    "IdempotencyKey",
    "Image",
    "Job",
    "JobDataset",
    "JobDependency",
    "JobImage",
    "LogChunk",
    "Membership",
    "Metric",
    "MetricBlock",
    "Project",
    "Sample",
    "User",
    "Webhook",
    "Worker",
]
