"""Arguments and options that commands share, lookup of a job, and printing."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from pydantic_core import to_json
from rich.console import Console

from calibrl.client import Client
from calibrl.commands import completion
from calibrl.schemas import JobSummary, Page

SEARCHED_PAGES = 20  # pages of 100 matching jobs that are searched for an id prefix
HERE, JOBS, QUEUE, ACCESS = "On this machine", "Jobs", "Queue", "Access"  # sections of the help text

JobArgument = Annotated[
    str,
    typer.Argument(
        metavar="JOB", help="Id of a job, a prefix of the id, or `latest`.", autocompletion=completion.job_ids
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StackFolder = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Use the local stack that runs on this folder.")
]


def find(client: Client, job: str) -> JobSummary:
    """Return the job that an argument names: `latest`, an id, or a prefix of exactly one id.

    Raises:
        typer.BadParameter: no job, or more than one, matches.
    """
    if job == "latest":
        newest = client.jobs(limit=1).data
        if not newest:
            raise typer.BadParameter("there are no jobs yet", param_hint="JOB")
        return newest[0]
    if not job or set(job.lower()) - set("0123456789abcdef-"):
        raise typer.BadParameter(f"{job!r} is not an id, a prefix of an id, or `latest`", param_hint="JOB")
    if len(job) == len(str(UUID(int=0))):
        return client.job(job)
    matches = [row for page in _pages(client, job) for row in page.data if str(row.id).startswith(job.lower())]
    if len(matches) != 1:
        fault = "more than one job id begins with" if matches else "no job id begins with"
        raise typer.BadParameter(f"{fault} {job!r}; `calibrl jobs` lists them", param_hint="JOB")
    return matches[0]


def _pages(client: Client, q: str) -> Iterator[Page[JobSummary]]:
    after = None
    for _ in range(SEARCHED_PAGES):
        page = client.jobs(q=q, after=after)
        yield page
        if not page.has_more:
            return
        after = page.data[-1].id


def console() -> Console:
    """Return a console for standard output. In a pipe its lines are long, so that each table row stays one line."""
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False)


def print_rich(content: Any) -> None:
    """Print text or a rich renderable."""
    console().print(content)


def print_json(content: Any) -> None:
    """Print a record or a list of records as JSON."""
    typer.echo(to_json(content, indent=2).decode())
