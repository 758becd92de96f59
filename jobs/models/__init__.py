"""Tables, one file per resource. An import of this package registers all of them with `Base.metadata`."""

from jobs.models.access import ApiKey, AuditEntry, BrowserSession, Membership, User
from jobs.models.accuracies import Accuracies
from jobs.models.alert_rules import AlertRule
from jobs.models.attempts import Attempt
from jobs.models.base import Base
from jobs.models.checkpoints import Checkpoint
from jobs.models.datasets import Dataset, JobDataset
from jobs.models.events import Event
from jobs.models.feed import Feed
from jobs.models.histograms import Histogram
from jobs.models.idempotency import IdempotencyKey
from jobs.models.images import Image, JobImage
from jobs.models.job_machines import JobMachine, PartState
from jobs.models.jobs import Job, JobDependency, JobOrigin
from jobs.models.logs import LogChunk
from jobs.models.metrics import MetricBlock, StepMetrics
from jobs.models.projects import Project
from jobs.models.recorded_runs import RecordedRun
from jobs.models.samples import Sample
from jobs.models.saved_views import SavedView
from jobs.models.studies import Study, StudyEntry
from jobs.models.verdicts import PersonVerdict
from jobs.models.visits import StepVisits
from jobs.models.webhooks import Delivery, Webhook
from jobs.models.workers import Gpu, Worker

__all__ = [
    "Accuracies",
    "AlertRule",
    "ApiKey",
    "Attempt",
    "AuditEntry",
    "Base",
    "BrowserSession",
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
    "JobMachine",
    "JobOrigin",
    "LogChunk",
    "Membership",
    "MetricBlock",
    "PartState",
    "PersonVerdict",
    "Project",
    "RecordedRun",
    "Sample",
    "SavedView",
    "StepMetrics",
    "StepVisits",
    "Study",
    "StudyEntry",
    "User",
    "Webhook",
    "Worker",
]
