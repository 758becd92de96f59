"""A project's webhooks."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Path

from api.deps import Asker, Db, Limit
from api.examples import WEBHOOKS
from api.idempotency import IdempotentRoute
from jobs import webhooks
from jobs.errors import FieldError, Invalid
from jobs.repository import projects
from jobs.repository import webhooks as rows
from jobs.schemas import CreatedWebhook, Delivery, NewWebhook, Page, Role, Slug, Webhook

router = APIRouter(prefix="/projects/{slug}/webhooks", tags=["webhooks"], route_class=IdempotentRoute)
Named = Annotated[Slug, Path(description="the project")]


@router.get("")
def list_webhooks(slug: Named, session: Db, caller: Asker) -> Page[Webhook]:
    """A project's webhooks; for its admins, as all that concerns them."""
    caller.need(slug, Role.ADMIN)
    projects.get(session, slug)
    return Page(data=[Webhook.model_validate(row) for row in rows.of_project(session, slug)], has_more=False)


@router.post("", status_code=201)
def add_webhook(
    slug: Named, new: Annotated[NewWebhook, Body(openapi_examples=WEBHOOKS)], session: Db, caller: Asker
) -> CreatedWebhook:
    """Have an address be told what happens to the project's jobs. The secret is shown this once."""
    caller.need(slug, Role.ADMIN)
    if (wrong := webhooks.problem(new.url)) is not None:
        raise Invalid("The webhook was not added.", (FieldError("url", wrong),))
    projects.get(session, slug)
    secret = webhooks.new_secret()
    row = rows.add(session, slug, url=new.url, events=new.events, secret=secret, user=caller.user)
    return CreatedWebhook(**Webhook.model_validate(row).model_dump(), secret=secret)


@router.delete("/{webhook_id}", status_code=204)
def remove_webhook(slug: Named, webhook_id: UUID, session: Db, caller: Asker) -> None:
    """Tell an address nothing more."""
    caller.need(slug, Role.ADMIN)
    rows.remove(session, rows.get(session, slug, webhook_id))


@router.post("/{webhook_id}/ping", status_code=202)
def ping_webhook(slug: Named, webhook_id: UUID, session: Db, caller: Asker) -> Delivery:
    """Send an address a message of type `ping`; its deliveries show what came of it."""
    caller.need(slug, Role.ADMIN)
    return Delivery.model_validate(rows.ping(session, rows.get(session, slug, webhook_id)))


@router.get("/{webhook_id}/deliveries")
def list_deliveries(slug: Named, webhook_id: UUID, session: Db, caller: Asker, limit: Limit = 100) -> Page[Delivery]:
    """The newest messages to an address, and how each went."""
    caller.need(slug, Role.ADMIN)
    found = rows.deliveries(session, rows.get(session, slug, webhook_id), limit + 1)
    return Page(data=[Delivery.model_validate(row) for row in found[:limit]], has_more=len(found) > limit)
