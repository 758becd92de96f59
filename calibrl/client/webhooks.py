"""A project's webhooks."""

from uuid import UUID

from calibrl.client.connection import Connection, path_of
from calibrl.schemas import CreatedWebhook, Delivery, NewWebhook, Page, Webhook


class Webhooks(Connection):
    """A project's webhooks; for its admins."""

    def webhooks(self, project: str) -> list[Webhook]:
        """The addresses that are told what happens to the project's jobs."""
        return self._get(Page[Webhook], path_of("projects", project, "webhooks")).data

    def add_webhook(self, project: str, new: NewWebhook) -> CreatedWebhook:
        """Have an address be told; the answer has the secret, which is never shown again."""
        return self._send("POST", CreatedWebhook, path_of("projects", project, "webhooks"), new)

    def remove_webhook(self, project: str, id: UUID | str) -> None:
        """Tell an address nothing more."""
        self._delete(path_of("projects", project, "webhooks", str(id)))

    def ping_webhook(self, project: str, id: UUID | str) -> Delivery:
        """Send an address a message of type `ping`."""
        return self._ask(Delivery, path_of("projects", project, "webhooks", str(id), "ping"))

    def deliveries(self, project: str, id: UUID | str) -> list[Delivery]:
        """The newest messages to an address, and how each went."""
        return self._get(Page[Delivery], path_of("projects", project, "webhooks", str(id), "deliveries")).data
