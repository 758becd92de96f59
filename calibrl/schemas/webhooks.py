"""Webhooks: URLs that receive a message when something happens to the jobs of a project."""

from datetime import datetime
from enum import StrEnum
from typing import Literal
from uuid import UUID

from pydantic import Field

from calibrl.schemas.base import Record
from calibrl_core.settings.base import StrictSettings

WebhookEvent = Literal[
    "job.queued",
    "job.waiting",
    "job.running",
    "job.paused",
    "job.succeeded",
    "job.failed",
    "job.cancelled",
    "job.health",
    "job.warning",
    "job.checkpoint",
]
DEFAULT_EVENTS: tuple[WebhookEvent, ...] = ("job.succeeded", "job.failed", "job.cancelled", "job.health")


class NewWebhook(StrictSettings):
    """A new webhook."""

    url: str = Field(
        min_length=8,
        max_length=2000,
        pattern=r"^https?://[^\s@]+$",
        description="URL to post to: https, without user name and password.",
    )
    events: tuple[WebhookEvent, ...] = Field(
        DEFAULT_EVENTS, min_length=1, max_length=10, description="Events that are sent to the URL."
    )


class Webhook(Record):
    """A URL that receives messages about the jobs of a project."""

    id: UUID
    project: str
    url: str
    events: list[WebhookEvent]
    created_by: str
    created_at: datetime


class CreatedWebhook(Webhook):
    """A new webhook. `secret` is only returned once."""

    secret: str = Field(description="Secret that signs the messages, in the Standard Webhooks format: whsec_...")


class DeliveryStatus(StrEnum):
    """Status of a message: to be sent (again), delivered, or given up after the last try."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Delivery(Record):
    """A message to a webhook, and the result of sending it."""

    id: UUID
    type: str
    job_id: UUID | None
    status: DeliveryStatus
    attempts: int
    response: str | None = Field(description="Result of the last try: a status code, or the error.")
    next_at: datetime | None = Field(description="Time of the next try. null: no further try.")
    created_at: datetime
