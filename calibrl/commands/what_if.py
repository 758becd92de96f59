"""The command of what-ifs: the update of a step beside those of other settings."""

from typing import Annotated, Any

import typer

from calibrl.client import Client
from calibrl.commands.arguments import AsJson, JobArgument, StackFolder, print_json, print_rich
from calibrl.commands.evaluations import EVALUATIONS
from calibrl.commands.follow_job import wait_for_success
from calibrl.schemas import CheckpointChoice
from calibrl.specfile import read_settings
from calibrl.views import what_ifs

app = typer.Typer()


@app.command("what-if", rich_help_panel=EVALUATIONS)
def what_if(
    job: JobArgument,
    step: Annotated[
        int | None, typer.Option(min=0, help="Step of the checkpoint before the compared update.", show_default="last")
    ] = None,
    update: Annotated[int, typer.Option(min=0, help="Number of the update in the step, from 0.")] = 0,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE[,KEY=VALUE...]",
            help="Changed settings of the algorithm: negative_slope=0, or type=grpo. Can be repeated.",
            show_default="those that the algorithm names",
        ),
    ] = None,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Compare the update after a checkpoint of a training with those of other settings, without training. JOB is the
    training, or a what-if that has ended.
    """
    variants: dict[str, dict[str, Any]] = {text: read_settings(text, "--variant") for text in variant or []}
    with Client(data_dir=data) as client:
        found = client.job(client.find_job(job).id)
        if found.kind != "what_if":
            checkpoint: CheckpointChoice = "last" if step is None else step
            found = wait_for_success(
                client.what_if(found.id, checkpoint=checkpoint, update=update, variants=variants or None), "what-if"
            )
        result = client.what_if_result(found.id)
    print_json(result) if as_json else print_rich(what_ifs.what_if_page(result))
