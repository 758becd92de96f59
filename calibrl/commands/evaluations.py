"""Commands of evaluations and audits: results, comparison of models, and replay of stored completions."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from calibrl.client import Client
from calibrl.client.evaluations import Compared
from calibrl.commands.arguments import AsJson, JobArgument, StackFolder, print_json, print_rich
from calibrl.extras import require
from calibrl.specfile import read_settings
from calibrl.views import audits, evaluations

EVALUATIONS = "Evaluations"  # section of the help text
app = typer.Typer()


@app.command("evals", rich_help_panel=EVALUATIONS)
def show_evaluation(job: JobArgument, as_json: AsJson = False, data: StackFolder = None) -> None:
    """Show the results of an evaluation: each model on each dataset, with 95 % intervals."""
    with Client(data_dir=data) as client:
        evaluation = client.evaluation(client.find_job(job).id)
    print_json(evaluation) if as_json else print_rich(evaluations.evaluation_page(evaluation))


@app.command(rich_help_panel=EVALUATIONS)
def compare(
    jobs: Annotated[
        list[str],
        typer.Argument(
            metavar="JOB[:MODEL]...",
            help="Evaluations, each with all its models, or with one model by its index from 0.",
        ),
    ],
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this dataset.", show_default="all shared datasets")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Random seed of the bootstrap.")] = 0,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Compare models on the same prompts: differences with 95 % intervals, and which are significant."""
    with Client(data_dir=data) as client:
        models = [_model(client, one) for one in jobs]
        comparisons = client.compare_evaluations(*models, split=split, seed=seed)
    if as_json:
        print_json(comparisons)
        return
    pages = [part for one in comparisons for part in (Text(), evaluations.comparison_page(one))]
    print_rich(Group(*pages[1:]))


@app.command(rich_help_panel=EVALUATIONS)
def replay(
    job: JobArgument,
    reward: Annotated[
        list[str],
        typer.Option(
            metavar="type=NAME[,KEY=VALUE...]",
            help="Verifier to score with, as in the rewards of a spec: type=numeric,relative_tolerance=0.01",
            show_default=False,
        ),
    ],
    first_step: Annotated[int, typer.Option(min=0, help="First step.")] = 0,
    last_step: Annotated[int | None, typer.Option(min=0, help="Last step.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=5000, help="Maximum number of completions.")] = 1000,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Score the stored completions of a training with other verifiers and list changed verdicts. Changes nothing."""
    rewards = [read_settings(one, "--reward") for one in reward]
    with Client(data_dir=data) as client:
        id = client.find_job(job).id
        result = client.replay(id, rewards, first_step=first_step, last_step=last_step, limit=limit)
    print_json(result) if as_json else print_rich(evaluations.replay_page(result))


@app.command(rich_help_panel=EVALUATIONS)
def audit(
    job: JobArgument,
    rows: Annotated[int, typer.Option(min=0, max=200, help="Maximum number of rows to print, the worst first.")] = 20,
    write: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the rows to use, and those with a restated expert, as JSONL.", dir_okay=False
        ),
    ] = None,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Show the result of an audit of experts: verdicts, expected quadrants, and the worst rows with their reasons."""
    if write:
        require("trainer", "calibrl audit --write")
    with Client(data_dir=data) as client:
        found = client.job(client.find_job(job).id)
        result = client.expert_audit(found.id)
        print_json(result) if as_json else print_rich(audits.audit_page(result, rows))
        if write:
            from calibrl.commands import audit_rows

            written = audit_rows.write(client, found, write)
            if not as_json:
                typer.echo(audits.written_line(written.rows, written.replaced, written.left_out, write))


def _model(client: Client, argument: str) -> Compared:
    job, colon, index = argument.partition(":")
    if colon and not index.isdecimal():
        raise typer.BadParameter(f"{argument!r}: write the index of a model, from 0, after the colon", param_hint="JOB")
    id = client.find_job(job).id
    return (id, int(index)) if colon else id
