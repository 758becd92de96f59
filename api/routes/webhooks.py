"""A project's webhooks."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Path, Response

from api.deps import CurrentCaller, Db, Limit
from api.examples import WEBHOOKS
from api.idempotency import IdempotentRoute
from calibrl.schemas import CreatedWebhook, Delivery, NewWebhook, Page, Role, Slug, Webhook, WebhookFormat
from jobs.errors import FieldError, Invalid
from jobs.repository import projects
from jobs.repository import webhooks as rows
from jobs.webhooks import public_addresses, sender

router = APIRouter(prefix="/projects/{slug}/webhooks", tags=["webhooks"], route_class=IdempotentRoute)
Named = Annotated[Slug, Path(description="Slug of the project.")]


def _looked_up(
    slug: Named, new: Annotated[NewWebhook, Body(openapi_examples=WEBHOOKS)], caller: CurrentCaller
) -> tuple[NewWebhook, str | None]:
    """Return the requested webhook and the faults of its address.

    The address is looked up before the transaction, which must not wait for a name server. The faults are raised
    inside it, so that a repeated request gets the same answer.
    """
    caller.need(slug, Role.ADMIN)
    return new, public_addresses.problem(new.url)


@router.get("")
def list_webhooks(slug: Named, session: Db, caller: CurrentCaller) -> Page[Webhook]:
    """List the webhooks of a project. All webhook routes need an admin of the project."""
    caller.need(slug, Role.ADMIN)
    projects.get(session, slug)
    return Page(data=[Webhook.model_validate(row) for row in rows.of_project(session, slug)], has_more=False)


@router.post("", status_code=201)
def add_webhook(
    slug: Named,
    looked_up: Annotated[tuple[NewWebhook, str | None], Depends(_looked_up)],
    session: Db,
    caller: CurrentCaller,
    response: Response,
) -> CreatedWebhook:
    """Add a webhook for the events of the project's jobs. The secret is shown only in this answer."""
    new, wrong = looked_up
    caller.need(slug, Role.ADMIN)
    if wrong is not None:
        raise Invalid("The webhook was not added.", (FieldError("url", wrong),))
    projects.get(session, slug)
    secret = sender.new_secret()
    row = rows.add(session, slug, url=new.url, events=new.events, secret=secret, user=caller.user, format=new.format)
    response.headers["Location"] = f"/v1/projects/{slug}/webhooks/{row.id}"
    webhook = Webhook.model_validate(row)
    caller.changed(row.id, None, webhook)
    shown = secret if new.format is WebhookFormat.STANDARD else None
    return CreatedWebhook(**webhook.model_dump(), secret=shown)


@router.get("/{webhook_id}")
def read_webhook(slug: Named, webhook_id: UUID, session: Db, caller: CurrentCaller) -> Webhook:
    """Return one webhook, without its secret."""
    caller.need(slug, Role.ADMIN)
    return Webhook.model_validate(rows.get(session, slug, webhook_id))


@router.delete("/{webhook_id}", status_code=204)
def remove_webhook(slug: Named, webhook_id: UUID, session: Db, caller: CurrentCaller) -> None:
    """Remove a webhook."""
    caller.need(slug, Role.ADMIN)
    row = rows.get(session, slug, webhook_id)
    caller.changed(webhook_id, Webhook.model_validate(row))
    rows.remove(session, row)


@router.post("/{webhook_id}/ping", status_code=202)
def ping_webhook(slug: Named, webhook_id: UUID, session: Db, caller: CurrentCaller) -> Delivery:
    """Send an address a message of type `ping`; its deliveries show the result."""
    caller.need(slug, Role.ADMIN)
    return Delivery.model_validate(rows.ping(session, rows.get(session, slug, webhook_id)))


@router.get("/{webhook_id}/deliveries")
def list_deliveries(
    slug: Named, webhook_id: UUID, session: Db, caller: CurrentCaller, limit: Limit = 100
) -> Page[Delivery]:
    """List the newest messages to an address, with the result of each."""
    caller.need(slug, Role.ADMIN)
    deliveries = rows.deliveries(session, rows.get(session, slug, webhook_id), limit + 1)
    return Page(data=[Delivery.model_validate(row) for row in deliveries[:limit]], has_more=len(deliveries) > limit)
