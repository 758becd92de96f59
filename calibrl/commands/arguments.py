"""Arguments and options that commands share, and printing."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic_core import to_json
from rich.console import Console

from calibrl.commands import completion
from calibrl.schemas.jobs import parse_label

HERE, JOBS, QUEUE, ACCESS = "On this machine", "Jobs", "Queue", "Access"  # sections of the help text

JobArgument = Annotated[
    str,
    typer.Argument(
        metavar="JOB",
        help="Id of a job, the beginning of the id, its name, or `latest`.",
        autocompletion=completion.job_ids,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StackFolder = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Use the local stack that runs on this folder.")
]

Moment = datetime | None


def moment(text: str) -> datetime:
    """Parse an ISO 8601 date or time; without a time zone it is local time."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a date: write it as 2026-11-24 or 2026-11-24T18:00") from None
    return found.astimezone(UTC)


def read_label(text: str) -> tuple[str, str]:
    """Return the key and the value of a label.

    Raises:
        BadParameter: the text is not a label.
    """
    try:
        return parse_label(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def console() -> Console:
    """Return a console for standard output. In a pipe its lines are long, so that each table row stays one line."""
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False)


def print_rich(content: Any) -> None:
    """Print text or a rich renderable."""
    console().print(content)


def print_json(content: Any) -> None:
    """Print a record or a list of records as JSON."""
    typer.echo(to_json(content, indent=2).decode())
