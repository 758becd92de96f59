"""Webhooks: URLs that receive a message when something happens to the jobs of a project."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import Field, model_validator

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


class WebhookFormat(StrEnum):
    """Form of the messages: signed according to Standard Webhooks, as an incoming webhook of a chat service takes them,
    or an e-mail."""

    STANDARD = "standard"
    SLACK = "slack"
    TEAMS = "teams"
    DISCORD = "discord"
    EMAIL = "email"


WebhookUrl = Annotated[
    str,
    Field(
        min_length=8,
        max_length=2000,
        pattern=r"^(https?://[^\s@]+|mailto:[A-Za-z0-9._+\-]+@[A-Za-z0-9.\-]+)$",
        description="URL to post to: https, without user name and password. For e-mail: mailto:ada@example.com.",
    ),
]
Events = Annotated[
    tuple[WebhookEvent, ...], Field(min_length=1, max_length=10, description="Events that are sent to the URL.")
]


class NewWebhook(StrictSettings):
    """A new webhook."""

    url: WebhookUrl
    format: WebhookFormat = Field(WebhookFormat.STANDARD, description="Form of the messages.")
    events: Events = DEFAULT_EVENTS

    @model_validator(mode="after")
    def _url_fits(self) -> Self:
        mail = self.url.startswith("mailto:")
        if mail != (self.format is WebhookFormat.EMAIL):
            need = "format email" if mail else "a url that begins with mailto:"
            raise ValueError(f"{self.url!r} with format {self.format.value}: this needs {need}")
        return self


class WebhookChanges(StrictSettings):
    """Changes of a webhook. Fields that are left out stay as they are; format and secret stay, too."""

    url: WebhookUrl | None = Field(None, description="New URL, of the kind that the format takes.")
    events: Events | None = Field(None, description="Events in place of the present ones.")


class Webhook(Record):
    """A URL that receives messages about the jobs of a project."""

    id: UUID
    project: str
    url: str
    format: WebhookFormat
    events: list[WebhookEvent]
    created_by: str
    created_at: datetime


class CreatedWebhook(Webhook):
    """A new webhook. `secret` is only returned once."""

    secret: str | None = Field(
        description="Secret that signs the messages of format standard: whsec_... null for other formats."
    )


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
