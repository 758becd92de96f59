"""The command of bisections: the update after which a training became worse."""

from typing import Annotated

import typer

from calibrl.client import Client
from calibrl.commands.arguments import AsJson, JobArgument, StackFolder, print_json, print_rich
from calibrl.commands.evaluations import EVALUATIONS
from calibrl.commands.follow_job import wait_for_success
from calibrl.views import bisections

app = typer.Typer()


@app.command(rich_help_panel=EVALUATIONS)
def bisect(
    job: JobArgument,
    rule: Annotated[
        str | None, typer.Option(help="Health rule that fired.", show_default="the one that fired last")
    ] = None,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Find the update after which a training became worse, for a health rule that fired. JOB is the training, or a
    bisection that has ended.
    """
    with Client(data_dir=data) as client:
        found = client.job(client.find_job(job).id)
        if found.kind != "bisect":
            found = wait_for_success(client.bisect(found.id, rule=rule), "bisection")
        result = client.bisection(found.id)
    print_json(result) if as_json else print_rich(bisections.bisection_page(result, found.spec["kept"][0]["from_job"]))
