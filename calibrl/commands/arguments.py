"""What the commands share: their arguments and options, how a job is found, and how things are printed."""

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

SEARCHED_PAGES = 20  # of 100 jobs, of those that match, in which an id's beginning is looked for
HERE, JOBS, QUEUE, ACCESS = "On this machine", "Jobs", "The queue", "Who may do what"  # the parts of the help text

JobArgument = Annotated[
    str,
    typer.Argument(metavar="JOB", help="An id, the beginning of one, or `latest`.", autocompletion=completion.job_ids),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StackFolder = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Ask the local stack that runs on this folder.")
]


def find(client: Client, job: str) -> JobSummary:
    """The job that an argument means: `latest`, an id, or the beginning of exactly one."""
    if job == "latest":
        newest = client.jobs(limit=1).data
        if not newest:
            raise typer.BadParameter("there are no jobs yet", param_hint="JOB")
        return newest[0]
    if not job or set(job.lower()) - set("0123456789abcdef-"):
        raise typer.BadParameter(f"{job!r} is no id, beginning of an id, or `latest`", param_hint="JOB")
    if len(job) == len(str(UUID(int=0))):
        return client.job(job)
    found = [one for page in _pages(client, job) for one in page.data if str(one.id).startswith(job.lower())]
    if len(found) != 1:
        fault = "the ids of several jobs begin with" if found else "no job's id begins with"
        raise typer.BadParameter(f"{fault} {job!r}; `calibrl jobs` lists them", param_hint="JOB")
    return found[0]


def _pages(client: Client, q: str) -> Iterator[Page[JobSummary]]:
    after = None
    for _ in range(SEARCHED_PAGES):
        page = client.jobs(q=q, after=after)
        yield page
        if not page.has_more:
            return
        after = page.data[-1].id


def console() -> Console:
    """Standard output; piped, its lines are long enough for another program to read a table's row as one."""
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False)


def print_rich(what: Any) -> None:
    """Print text or something that rich draws."""
    console().print(what)


def print_json(what: Any) -> None:
    """Print a record, or a list of them, as JSON."""
    typer.echo(to_json(what, indent=2).decode())
