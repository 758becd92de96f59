"""Command of the queue: waiting jobs."""

from typing import Annotated

import typer

from calibrl.client import Client
from calibrl.commands import completion
from calibrl.commands.arguments import QUEUE, AsJson, StackFolder, print_json, print_rich
from calibrl.views import terminal

app = typer.Typer()

OneProject = Annotated[
    str | None,
    typer.Option("--project", metavar="SLUG", autocompletion=completion.projects, help="Show only this project."),
]


@app.command("queue", rich_help_panel=QUEUE)
def show_queue(project: OneProject = None, as_json: AsJson = False, data: StackFolder = None) -> None:
    """List the jobs that have not started, with position, expected start and reason."""
    with Client(data_dir=data) as client:
        entries = client.queue(project)
    if as_json:
        print_json(entries)
    else:
        print_rich(terminal.queue_table(entries) if entries else "No job is waiting.")
