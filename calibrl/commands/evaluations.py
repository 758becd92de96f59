"""The commands about evaluations: what they found, how models compare, and completions scored again."""

from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from calibrl.client import Client
from calibrl.client.evaluations import Compared
from calibrl.commands.arguments import AsJson, JobArgument, StackFolder, find, print_json, print_rich
from calibrl.specfile import read_settings
from calibrl.views import evaluations

EVALUATIONS = "Evaluations"  # a part of the help text
app = typer.Typer()


@app.command("evals", rich_help_panel=EVALUATIONS)
def show_evaluation(job: JobArgument, as_json: AsJson = False, data: StackFolder = None) -> None:
    """Show what an evaluation found: every model on every data set, with 95 % intervals."""
    with Client(data_dir=data) as client:
        found = client.evaluation(find(client, job).id)
    print_json(found) if as_json else print_rich(evaluations.evaluation_page(found))


@app.command(rich_help_panel=EVALUATIONS)
def compare(
    jobs: Annotated[
        list[str],
        typer.Argument(
            metavar="JOB[:MODEL]...", help="Evaluations, each with all its models or one: its place, from 0."
        ),
    ],
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this data set.", show_default="all they share")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of the bootstrap.")] = 0,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Compare models over the same prompts: differences with 95 % intervals, and whether they can be told apart."""
    with Client(data_dir=data) as client:
        models = [_model(client, one) for one in jobs]
        found = client.compare_evaluations(*models, split=split, seed=seed)
    if as_json:
        print_json(found)
        return
    pages = [part for one in found for part in (Text(), evaluations.comparison_page(one))]
    print_rich(Group(*pages[1:]))


@app.command(rich_help_panel=EVALUATIONS)
def replay(
    job: JobArgument,
    reward: Annotated[
        list[str],
        typer.Option(
            metavar="type=NAME[,KEY=VALUE...]",
            help="A verifier to score with, as in a spec's rewards: type=numeric,relative_tolerance=0.01",
            show_default=False,
        ),
    ],
    first_step: Annotated[int, typer.Option(min=0, help="Only from this step on.")] = 0,
    last_step: Annotated[int | None, typer.Option(min=0, help="Only up to this step.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=5000, help="Most completions to score.")] = 1000,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Score a training's stored completions again with other verifiers, and list which flip. Changes nothing."""
    rewards = [read_settings(one, "--reward") for one in reward]
    with Client(data_dir=data) as client:
        id = find(client, job).id
        found = client.replay(id, rewards, first_step=first_step, last_step=last_step, limit=limit)
    print_json(found) if as_json else print_rich(evaluations.replay_page(found))


def _model(client: Client, argument: str) -> Compared:
    job, colon, index = argument.partition(":")
    if colon and not index.isdecimal():
        raise typer.BadParameter(f"{argument!r}: behind the colon stands a model's place, from 0", param_hint="JOB")
    id = find(client, job).id
    return (id, int(index)) if colon else id
