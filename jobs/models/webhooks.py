"""Webhooks and their messages."""

from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ForeignKey, Index, Text, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from calibrl.schemas import DeliveryStatus, WebhookFormat
from jobs.models.base import Base, CreatedAt, Timestamp


class Webhook(Base):
    """A webhook. `secret` signs the messages, so it is stored in clear; the API returns it only once."""

    __tablename__ = "webhooks"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    project: Mapped[str] = mapped_column(ForeignKey("projects.slug", ondelete="CASCADE"), index=True)
    url: Mapped[str]
    format: Mapped[WebhookFormat] = mapped_column(
        default=WebhookFormat.STANDARD, server_default=WebhookFormat.STANDARD.value
    )
    events: Mapped[list[str]] = mapped_column(ARRAY(Text))
    secret: Mapped[str]
    created_by: Mapped[str]
    created_at: Mapped[CreatedAt]


class Delivery(Base):
    """A message. Written in the transaction of the event, so that each committed event has its messages and no other
    exists."""

    __tablename__ = "deliveries"
    __table_args__ = (
        Index("ix_deliveries_due", "next_at", postgresql_where=text("status = 'pending'")),
        Index(None, "created_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4, server_default=text("gen_random_uuid()"))
    webhook_id: Mapped[UUID] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"), index=True)
    type: Mapped[str]
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"), index=True)
    data: Mapped[dict[str, Any]]
    status: Mapped[DeliveryStatus] = mapped_column(
        default=DeliveryStatus.PENDING, server_default=DeliveryStatus.PENDING.value
    )
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    response: Mapped[str | None]
    next_at: Mapped[Timestamp | None] = mapped_column(server_default=text("clock_timestamp()"))
    created_at: Mapped[CreatedAt]
