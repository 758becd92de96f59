"""Commands of webhooks: list, add, change, change, remove, ping, deliveries."""

from typing import Annotated

import typer

from calibrl.client import CalibrlError, Client
from calibrl.commands import completion
from calibrl.commands.arguments import ACCESS, AsJson, StackFolder, print_json, print_rich
from calibrl.schemas import NewWebhook, Webhook, WebhookFormat
from calibrl.schemas.webhooks import DEFAULT_EVENTS
from calibrl.views import messages

app = typer.Typer()
webhooks_app = typer.Typer(
    help="Webhooks of a project: list, add, remove, ping, deliveries. Requires an admin of the project.",
    no_args_is_help=True,
)
app.add_typer(webhooks_app, name="webhooks", rich_help_panel=ACCESS)

Project = Annotated[
    str, typer.Option("--project", metavar="SLUG", autocompletion=completion.projects, help="Project of the webhook.")
]
WebhookArgument = Annotated[
    str, typer.Argument(metavar="WEBHOOK", help="Id of a webhook, or the beginning of the id.", show_default=False)
]


@webhooks_app.command("list")
def list_webhooks(project: Project = "default", as_json: AsJson = False, data: StackFolder = None) -> None:
    """List the webhooks of a project."""
    with Client(data_dir=data) as client:
        rows = client.webhooks(project)
    print_json(rows) if as_json else print_rich(messages.webhook_table(rows) if rows else "No webhooks.")


@webhooks_app.command("add")
def add_webhook(
    url: Annotated[str, typer.Argument(metavar="URL", help="https address, or mailbox, that receives the messages.")],
    format: Annotated[
        WebhookFormat, typer.Option(help="Form of the messages: signed, of a chat service, or e-mail.")
    ] = WebhookFormat.STANDARD,
    events: Annotated[
        list[str] | None,
        typer.Option(
            "--event",
            metavar="EVENT",
            help="Event to send, such as job.succeeded. Can be repeated.",
            show_default=", ".join(DEFAULT_EVENTS),
        ),
    ] = None,
    project: Project = "default",
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Add a webhook and print the secret that signs its messages, which cannot be shown again. Only messages of the
    format standard are signed."""
    address = f"mailto:{url}" if format is WebhookFormat.EMAIL and not url.startswith("mailto:") else url
    new = NewWebhook.model_validate({"url": address, "format": format} | ({"events": events} if events else {}))
    with Client(data_dir=data) as client:
        added = client.add_webhook(project, new)
    print_json(added) if as_json else typer.echo(added.secret or f"added webhook {str(added.id)[:8]}")


@webhooks_app.command("change")
def change_webhook(
    webhook: WebhookArgument,
    url: Annotated[str | None, typer.Option(metavar="URL", help="New https address.")] = None,
    events: Annotated[
        list[str] | None,
        typer.Option("--event", metavar="EVENT", help="Event to send in place of the present ones. Can be repeated."),
    ] = None,
    project: Project = "default",
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Change the address or the events of a webhook. Its secret stays."""
    if url is None and not events:
        raise typer.BadParameter("give --url or --event", param_hint="WEBHOOK")
    with Client(data_dir=data) as client:
        changed = client.change_webhook(project, _find(client, project, webhook).id, url=url, events=events)
    print_json(changed) if as_json else print_rich(messages.webhook_table([changed]))


@webhooks_app.command("remove")
def remove_webhook(webhook: WebhookArgument, project: Project = "default", data: StackFolder = None) -> None:
    """Remove a webhook."""
    with Client(data_dir=data) as client:
        client.remove_webhook(project, _find(client, project, webhook).id)


@webhooks_app.command("ping")
def ping_webhook(
    webhook: WebhookArgument, project: Project = "default", as_json: AsJson = False, data: StackFolder = None
) -> None:
    """Send a test message to a webhook. `calibrl webhooks deliveries` shows the result."""
    with Client(data_dir=data) as client:
        sent = client.ping_webhook(project, _find(client, project, webhook).id)
    print_json(sent) if as_json else typer.echo(f"message {sent.id} is {sent.status}")


@webhooks_app.command("deliveries")
def list_deliveries(
    webhook: WebhookArgument, project: Project = "default", as_json: AsJson = False, data: StackFolder = None
) -> None:
    """List the newest messages to a webhook with their results."""
    with Client(data_dir=data) as client:
        rows = client.deliveries(project, _find(client, project, webhook).id)
    print_json(rows) if as_json else print_rich(messages.delivery_table(rows) if rows else "No messages.")


def _find(client: Client, project: str, text: str) -> Webhook:
    found = [one for one in client.webhooks(project) if str(one.id).startswith(text.lower())]
    if len(found) != 1:
        fault = "several webhooks have" if found else "no webhook has"
        raise CalibrlError(f"{fault} an id that begins with {text!r}; `calibrl webhooks list` shows them", status=404)
    return found[0]
