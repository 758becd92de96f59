"""Webhooks: addresses that are told when something happens to a project's jobs."""

from datetime import datetime
from enum import StrEnum
from typing import Literal
from uuid import UUID

from pydantic import Field

from calibrl.schemas.base import Record
from calibrl_core.settings_base import Closed

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
AT_ITS_END: tuple[WebhookEvent, ...] = ("job.succeeded", "job.failed", "job.cancelled", "job.health")


class NewWebhook(Closed):
    """An address to tell."""

    url: str = Field(min_length=8, max_length=2000, pattern=r"^https?://[^\s@]+$", description="https, without a login")
    events: tuple[WebhookEvent, ...] = Field(AT_ITS_END, min_length=1, max_length=10, description="what it is told of")


class Webhook(Record):
    """An address that is told what happens to a project's jobs."""

    id: UUID
    project: str
    url: str
    events: list[WebhookEvent]
    created_by: str
    created_at: datetime


class CreatedWebhook(Webhook):
    """A new webhook. `secret` is shown this once."""

    secret: str = Field(description="what its messages are signed with, as Standard Webhooks has it: whsec_...")


class DeliveryStatus(StrEnum):
    """Where a message stands: to be sent (again), taken by the address, or given up after the last try."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Delivery(Record):
    """A message to an address, and how it went."""

    id: UUID
    type: str
    job_id: UUID | None
    status: DeliveryStatus
    attempts: int
    response: str | None = Field(description="what came of the last try: a status code, or what went wrong")
    next_at: datetime | None = Field(description="of the next try, while there is one")
    created_at: datetime
