"""Webhooks of a project."""

from collections.abc import Sequence
from uuid import UUID

from calibrl.client.connection import Connection, path_of
from calibrl.schemas import CreatedWebhook, Delivery, NewWebhook, Page, Webhook, WebhookChanges


class WebhookRequests(Connection):
    """Webhooks of a project. For admins of the project."""

    def webhooks(self, project: str) -> list[Webhook]:
        """Return the URLs that receive the events of the jobs of a project."""
        return self._get(Page[Webhook], path_of("projects", project, "webhooks")).data

    def add_webhook(self, project: str, new: NewWebhook) -> CreatedWebhook:
        """Add a webhook. Only this answer contains its secret."""
        return self._send("POST", CreatedWebhook, path_of("projects", project, "webhooks"), new)

    def change_webhook(
        self, project: str, id: UUID | str, *, url: str | None = None, events: Sequence[str] | None = None
    ) -> Webhook:
        """Change the URL or the events of a webhook. Its secret stays."""
        fields = {"url": url, "events": events}
        changes = WebhookChanges.model_validate({name: value for name, value in fields.items() if value is not None})
        return self._send("PATCH", Webhook, path_of("projects", project, "webhooks", str(id)), changes)

    def remove_webhook(self, project: str, id: UUID | str) -> None:
        """Remove a webhook."""
        self._delete(path_of("projects", project, "webhooks", str(id)))

    def ping_webhook(self, project: str, id: UUID | str) -> Delivery:
        """Send a message of type `ping`."""
        return self._ask(Delivery, path_of("projects", project, "webhooks", str(id), "ping"))

    def deliveries(self, project: str, id: UUID | str) -> list[Delivery]:
        """Return the newest messages of a webhook with the result of each."""
        return self._get(Page[Delivery], path_of("projects", project, "webhooks", str(id), "deliveries")).data
