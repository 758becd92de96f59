"""Command `prompts`: the visits of prompts of a training job."""

from typing import Annotated

import typer

from calibrl.client import Client
from calibrl.commands.arguments import JOBS, AsJson, JobArgument, StackFolder, print_json, print_rich
from calibrl.schemas import PromptList
from calibrl.views import prompts as pages

app = typer.Typer()


@app.command(rich_help_panel=JOBS)
def prompts(
    job: JobArgument,
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="[PROMPT]", help="Digest of a prompt: all its visits, and other runs with it.", show_default=False
        ),
    ] = None,
    which: Annotated[PromptList, typer.Option("--list", help="Prompts to list.")] = "all",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of prompts.")] = 100,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """List the prompts of a training job with the share of correct rollouts at each visit."""
    with Client(data_dir=data) as client:
        id = client.find_job(job).id
        if prompt is None:
            page = client.prompts(id, which, limit=limit)
            print_json(page) if as_json else print_rich(pages.prompts_page(page))
        else:
            visits = client.prompt(id, prompt)
            print_json(visits) if as_json else print_rich(pages.prompt_page(visits))
