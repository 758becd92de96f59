"""Webhooks, and the messages that are to reach them."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Insert, Text, Uuid, bindparam, case, delete, func, insert, literal, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from calibrl.schemas import DeliveryStatus
from jobs.errors import NotFound
from jobs.models import Delivery, Job, Webhook

KEPT = timedelta(days=30)
# In which whoever took a message has sent it and noted that; then another one may. Sending takes 10 s at most
# (`jobs.webhooks.sender.DEADLINE`), noting it 40 s of a database that is slow (a connection, a statement).
SENDING = timedelta(seconds=120)


def add(session: Session, project: str, *, url: str, events: Sequence[str], secret: str, user: str) -> Webhook:
    """A new webhook of a project."""
    webhook = Webhook(project=project, url=url, events=list(events), secret=secret, created_by=user)
    session.add(webhook)
    session.flush()
    return webhook


def get(session: Session, project: str, id: UUID) -> Webhook:
    """A webhook of a project.

    Raises:
        NotFound: the project has none of this id.
    """
    found = session.get(Webhook, id)
    if found is None or found.project != project:
        raise NotFound(f"Project {project} has no webhook {id}.")
    return found


def of_project(session: Session, project: str) -> list[Webhook]:
    """A project's webhooks, oldest first."""
    return list(session.scalars(select(Webhook).where(Webhook.project == project).order_by(Webhook.created_at)))


def remove(session: Session, webhook: Webhook) -> None:
    """Forget a webhook and its messages."""
    session.execute(delete(Webhook).where(Webhook.id == webhook.id))


def tell(session: Session, job_id: UUID, type: str, data: dict[str, Any]) -> None:
    """Have every webhook that wants to know be told of something that happens to a job."""
    session.execute(_told(), {"of_job": job_id, "told": type, "about": data})


@cache
def _told() -> Insert:
    """Tells of `:told`, with the data `:about`, which happens to the job `:of_job`. Put together once."""
    job_id, told = bindparam("of_job", type_=Uuid()), bindparam("told", type_=Text())
    wanted = (
        select(Webhook.id, told, Job.id, bindparam("about", type_=JSONB()))
        .join(Job, Job.project == Webhook.project)
        .where(Job.id == job_id, told == func.any(Webhook.events))
    )
    table = Delivery.metadata.tables[Delivery.__tablename__]  # the class would take the parameters for a row
    return insert(table).from_select(["webhook_id", "type", "job_id", "data"], wanted, include_defaults=False)


def ping(session: Session, webhook: Webhook) -> Delivery:
    """Have one webhook be told that it is there."""
    delivery = Delivery(webhook_id=webhook.id, type="ping", data={"project": webhook.project})
    session.add(delivery)
    session.flush()
    session.refresh(delivery)
    return delivery


def deliveries(session: Session, webhook: Webhook, limit: int) -> list[Delivery]:
    """A webhook's messages, newest first."""
    query = select(Delivery).where(Delivery.webhook_id == webhook.id)
    return list(session.scalars(query.order_by(Delivery.created_at.desc(), Delivery.id).limit(limit)))


def take_due(session: Session, limit: int, *, of_one: int, busy: Mapping[UUID, int]) -> list[tuple[Delivery, Webhook]]:
    """Messages that are to be sent now, for whoever asks: nobody else gets them for `SENDING`. Of each webhook at most
    `of_one`, less those that `busy` says are under way to it."""
    due = (Delivery.status == DeliveryStatus.PENDING, Delivery.next_at <= func.now())
    under_way = case(busy, value=Delivery.webhook_id, else_=0) if busy else literal(0)
    place = func.row_number().over(partition_by=Delivery.webhook_id, order_by=Delivery.next_at)
    placed = select(Delivery.id, (place + under_way).label("place")).where(*due).subquery()
    query = (
        select(Delivery, Webhook)
        .join(Webhook, Webhook.id == Delivery.webhook_id)
        .join(placed, placed.c.id == Delivery.id)
        .where(*due, placed.c.place <= of_one)  # once more: another one may have taken them since they were placed
        .order_by(Delivery.next_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=Delivery)
    )
    found = [(delivery, webhook) for delivery, webhook in session.execute(query)]
    ids = [delivery.id for delivery, _ in found]
    session.execute(update(Delivery).where(Delivery.id.in_(ids)).values(next_at=func.now() + SENDING))
    return found


def tried(session: Session, id: UUID, *, delivered: bool, response: str, again_in: float | None) -> None:
    """Note how a try went, and when there is another one, in seconds."""
    pending = DeliveryStatus.PENDING if again_in is not None else DeliveryStatus.FAILED
    values = {
        "status": DeliveryStatus.DELIVERED if delivered else pending,
        "attempts": Delivery.attempts + 1,
        "response": response,
        "next_at": None if delivered or again_in is None else func.now() + timedelta(seconds=again_in),
    }
    session.execute(update(Delivery).where(Delivery.id == id).values(values))


def forget_old(session: Session) -> None:
    """Remove messages that are kept no longer."""
    old = Delivery.created_at < func.now() - KEPT
    session.execute(delete(Delivery).where(old, Delivery.status != DeliveryStatus.PENDING))
