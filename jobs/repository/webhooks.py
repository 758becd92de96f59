"""Webhooks and their messages."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Insert, Text, Uuid, bindparam, case, delete, func, insert, literal, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from calibrl.schemas import DeliveryStatus, WebhookFormat
from jobs.errors import NotFound
from jobs.models import Delivery, Job, Webhook

RETENTION = timedelta(days=30)
# Time to send a message and record the result; then another process can take it. Sending takes at most 10 s
# (`jobs.webhooks.sender.DEADLINE`), recording up to 40 s with a slow database (a connection, a statement).
SENDING_TIME = timedelta(seconds=120)


def add(
    session: Session,
    project: str,
    *,
    url: str,
    events: Sequence[str],
    secret: str,
    user: str,
    format: WebhookFormat = WebhookFormat.STANDARD,
) -> Webhook:
    """Add a webhook to a project."""
    webhook = Webhook(project=project, url=url, events=list(events), secret=secret, created_by=user, format=format)
    session.add(webhook)
    session.flush()
    return webhook


def get(session: Session, project: str, id: UUID) -> Webhook:
    """Return a webhook of a project.

    Raises:
        NotFound: the project has no webhook of this id.
    """
    row = session.get(Webhook, id)
    if row is None or row.project != project:
        raise NotFound(f"Project {project} has no webhook {id}.")
    return row


def lock(session: Session, project: str, id: UUID) -> Webhook:
    """Lock a webhook of a project until the transaction ends, and return its present state.

    Raises:
        NotFound: the project has no webhook of this id.
    """
    session.get(Webhook, id, with_for_update=True, populate_existing=True)
    return get(session, project, id)


def change(session: Session, webhook: Webhook, values: Mapping[str, Any]) -> None:
    """Set fields of a locked webhook. Messages that wait go to its new URL."""
    for field, value in values.items():
        setattr(webhook, field, value)
    session.flush()


def of_project(session: Session, project: str) -> list[Webhook]:
    """Return the webhooks of a project, oldest first."""
    return list(session.scalars(select(Webhook).where(Webhook.project == project).order_by(Webhook.created_at)))


def remove(session: Session, webhook: Webhook) -> None:
    """Delete a webhook and its messages."""
    session.execute(delete(Webhook).where(Webhook.id == webhook.id))


def enqueue_deliveries(session: Session, job_id: UUID, type: str, data: dict[str, Any]) -> None:
    """Queue a message about an event of a job for every webhook that receives this type of event."""
    session.execute(_enqueue_statement(), {"of_job": job_id, "event": type, "content": data})


@cache
def _enqueue_statement() -> Insert:
    """Build the statement that queues messages of type `:event` about the job `:of_job`, once. They have the data
    `:content`, and the name and the project of the job.
    """
    job_id, event = bindparam("of_job", type_=Uuid()), bindparam("event", type_=Text())
    content = bindparam("content", type_=JSONB())
    about = func.jsonb_build_object("name", Job.name, "project", Job.project)
    subscribed = (
        select(Webhook.id, event, Job.id, content.op("||")(about))
        .join(Job, Job.project == Webhook.project)
        .where(Job.id == job_id, event == func.any(Webhook.events))
    )
    table = Delivery.metadata.tables[Delivery.__tablename__]  # the class would treat the parameters as a row
    return insert(table).from_select(["webhook_id", "type", "job_id", "data"], subscribed, include_defaults=False)


def ping(session: Session, webhook: Webhook) -> Delivery:
    """Queue a test message (`ping`) for one webhook."""
    delivery = Delivery(webhook_id=webhook.id, type="ping", data={"project": webhook.project})
    session.add(delivery)
    session.flush()
    session.refresh(delivery)
    return delivery


def deliveries(session: Session, webhook: Webhook, limit: int) -> list[Delivery]:
    """Return the messages of a webhook, newest first."""
    query = select(Delivery).where(Delivery.webhook_id == webhook.id)
    return list(session.scalars(query.order_by(Delivery.created_at.desc(), Delivery.id).limit(limit)))


def take_due(session: Session, limit: int, *, of_one: int, busy: Mapping[UUID, int]) -> list[tuple[Delivery, Webhook]]:
    """Take messages that are due. No other process gets them for `SENDING`.

    Args:
        of_one: maximum messages per webhook, including those that `busy` counts.
        busy: messages that are being sent at present, by webhook.
    """
    due = (Delivery.status == DeliveryStatus.PENDING, Delivery.next_at <= func.now())
    under_way = case(busy, value=Delivery.webhook_id, else_=0) if busy else literal(0)
    place = func.row_number().over(partition_by=Delivery.webhook_id, order_by=Delivery.next_at)
    placed = select(Delivery.id, (place + under_way).label("place")).where(*due).subquery()
    query = (
        select(Delivery, Webhook)
        .join(Webhook, Webhook.id == Delivery.webhook_id)
        .join(placed, placed.c.id == Delivery.id)
        .where(*due, placed.c.place <= of_one)  # check again: another process may have taken them since
        .order_by(Delivery.next_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=Delivery)
    )
    rows = [(delivery, webhook) for delivery, webhook in session.execute(query)]
    ids = [delivery.id for delivery, _ in rows]
    session.execute(update(Delivery).where(Delivery.id.in_(ids)).values(next_at=func.now() + SENDING_TIME))
    return rows


def record_attempt(session: Session, id: UUID, *, delivered: bool, response: str, again_in: float | None) -> None:
    """Record the result of a try, and the seconds until the next one (None: no further try)."""
    pending = DeliveryStatus.PENDING if again_in is not None else DeliveryStatus.FAILED
    values = {
        "status": DeliveryStatus.DELIVERED if delivered else pending,
        "attempts": Delivery.attempts + 1,
        "response": response,
        "next_at": None if delivered or again_in is None else func.now() + timedelta(seconds=again_in),
    }
    session.execute(update(Delivery).where(Delivery.id == id).values(values))


def forget_old(session: Session) -> None:
    """Delete expired messages."""
    old = Delivery.created_at < func.now() - RETENTION
    session.execute(delete(Delivery).where(old, Delivery.status != DeliveryStatus.PENDING))
