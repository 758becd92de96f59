"""A project's webhooks."""

from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Path, Response

from api import preconditions
from api.deps import CurrentCaller, Db, Limit
from api.examples import WEBHOOK_CHANGES, WEBHOOKS
from api.idempotency import IdempotentRoute
from api.preconditions import IfMatch
from calibrl.schemas import (
    CreatedWebhook,
    Delivery,
    NewWebhook,
    Page,
    Role,
    Slug,
    Webhook,
    WebhookChanges,
    WebhookFormat,
)
from jobs import models
from jobs.errors import FieldError, Invalid
from jobs.repository import projects
from jobs.repository import webhooks as rows
from jobs.webhooks import public_addresses, sender

router = APIRouter(prefix="/projects/{slug}/webhooks", tags=["webhooks"], route_class=IdempotentRoute)
SECRET_URLS = frozenset({WebhookFormat.SLACK, WebhookFormat.TEAMS, WebhookFormat.DISCORD})  # they replace a password
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


def _looked_up_changes(
    slug: Named,
    changes: Annotated[WebhookChanges, Body(openapi_examples=WEBHOOK_CHANGES)],
    caller: CurrentCaller,
) -> tuple[WebhookChanges, str | None]:
    caller.need(slug, Role.ADMIN)
    return changes, None if changes.url is None else public_addresses.problem(changes.url)


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
    caller.changed(row.id, None, _noted(row))
    shown = secret if new.format is WebhookFormat.STANDARD else None
    return CreatedWebhook(**webhook.model_dump(), secret=shown)


@router.get("/{webhook_id}")
def read_webhook(slug: Named, webhook_id: UUID, session: Db, caller: CurrentCaller, response: Response) -> Webhook:
    """Return one webhook, without its secret."""
    caller.need(slug, Role.ADMIN)
    return _tagged(rows.get(session, slug, webhook_id), response)


@router.patch("/{webhook_id}")
def change_webhook(
    slug: Named,
    webhook_id: UUID,
    looked_up: Annotated[tuple[WebhookChanges, str | None], Depends(_looked_up_changes)],
    session: Db,
    caller: CurrentCaller,
    response: Response,
    if_match: IfMatch = None,
) -> Webhook:
    """Change the URL or the events of a webhook. Its secret stays. Messages that wait go to the new URL."""
    changes, wrong = looked_up
    caller.need(slug, Role.ADMIN)
    row = rows.lock(session, slug, webhook_id)
    preconditions.check(if_match, row, preconditions.EDITED["webhook"])
    if wrong is not None:
        raise Invalid("The webhook was not changed.", (FieldError("url", wrong),))
    if changes.url is not None and changes.url.startswith("mailto:") != (row.format is WebhookFormat.EMAIL):
        fault = FieldError("url", f"does not fit the format {row.format}, which cannot be changed: add another webhook")
        raise Invalid("The webhook was not changed.", (fault,))
    before = _noted(row)
    rows.change(session, row, changes.model_dump(mode="json", exclude_none=True))
    caller.changed(row.id, before, _noted(row))
    return _tagged(row, response)


def _noted(row: models.Webhook) -> dict[str, Any]:
    """Return the record for the audit log, of a secret URL the host only."""
    webhook = Webhook.model_validate(row)
    values = webhook.model_dump(mode="json")
    return values | {"url": urlsplit(webhook.url).hostname} if webhook.format in SECRET_URLS else values


def _tagged(row: models.Webhook, response: Response) -> Webhook:
    webhook = Webhook.model_validate(row)
    preconditions.set_tag(response, webhook, preconditions.EDITED["webhook"])
    return webhook


@router.delete("/{webhook_id}", status_code=204)
def remove_webhook(slug: Named, webhook_id: UUID, session: Db, caller: CurrentCaller) -> None:
    """Remove a webhook."""
    caller.need(slug, Role.ADMIN)
    row = rows.get(session, slug, webhook_id)
    caller.changed(webhook_id, _noted(row))
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
