"""Command `hours`: what the slot-hours of a job or a project bought."""

from typing import Annotated

import typer

from calibrl.client import Client
from calibrl.commands import completion
from calibrl.commands.arguments import QUEUE, AsJson, StackFolder, print_json, print_rich
from calibrl.views import hours as pages

app = typer.Typer()


@app.command(rich_help_panel=QUEUE)
def hours(
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="[JOB]",
            help="Id of a job, a prefix of the id, or `latest`. Without it: the hours of a project.",
            autocompletion=completion.job_ids,
            show_default=False,
        ),
    ] = None,
    project: Annotated[
        str, typer.Option(metavar="SLUG", autocompletion=completion.projects, help="Project, if no job is given.")
    ] = "default",
    days: Annotated[
        int, typer.Option(min=1, max=366, help="Days of the project: attempts that began in them count.")
    ] = 30,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Show what the slot-hours of a job or of a project bought, and their price if one is set."""
    with Client(data_dir=data) as client:
        if job is None:
            found = client.project_hours(project, days=days)
            print_json(found) if as_json else print_rich(pages.project_page(found))
        else:
            of_job = client.hours(client.find_job(job).id)
            print_json(of_job) if as_json else print_rich(pages.job_page(of_job))
