"""Command `reproduce`: runs a job again and compares both series."""

from typing import Annotated

import typer

from calibrl.client import Client
from calibrl.commands.arguments import JOBS, AsJson, JobArgument, StackFolder, print_json
from calibrl.schemas import JobStatus
from calibrl.views import terminal
from calibrl.views.reproductions import comparison_lines

app = typer.Typer()


@app.command(rich_help_panel=JOBS)
def reproduce(
    job: JobArgument,
    against: Annotated[
        str | None,
        typer.Option(metavar="JOB", help="Compare with this job, and run nothing.", show_default="runs JOB again"),
    ] = None,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Run a job again and compare the series step by step. Exit code 1: a value differs, or a job did not succeed."""
    with Client(data_dir=data) as client:
        first = client.find_job(job)
        if against is None:
            again = client.reproduce(first.id)
            typer.echo(f"{again.id} runs {first.name} again", err=True)
            again = again.wait()
            if again.status is not JobStatus.SUCCEEDED:
                typer.echo(terminal.headline(again), err=True)
            second = again.id
        else:
            second = client.find_job(against).id
        found = client.compare_series(second, first.id)
    if as_json:
        print_json(found)
    else:
        typer.echo("\n".join(comparison_lines(found)))
    raise typer.Exit(0 if found.equal and found.complete else 1)
