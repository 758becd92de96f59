"""Commands of projects: list, add, set, remove, usage."""

from math import inf, isfinite, nan
from typing import Annotated, Any

import typer

from calibrl.client import Client
from calibrl.commands import completion
from calibrl.commands.arguments import QUEUE, AsJson, StackFolder, print_json, print_rich
from calibrl.views import terminal

app = typer.Typer()
projects_app = typer.Typer(invoke_without_command=True)
app.add_typer(projects_app, name="projects", rich_help_panel=QUEUE)

Limit = float | None  # infinity: no limit
ProjectName = Annotated[
    str, typer.Argument(metavar="SLUG", autocompletion=completion.projects, help="Name of the project.")
]


def _number(text: str) -> float:
    """Parse a number; `none` gives infinity."""
    if text == "none":
        return inf
    try:
        number = float(text)
    except ValueError:
        number = nan
    if not isfinite(number):
        raise typer.BadParameter(f"{text!r} is not a number or `none`")
    return int(number) if number.is_integer() else number


def _limit(name: str, help: str) -> Any:
    return typer.Option(name, parser=_number, metavar="N|none", help=help, show_default=False)


@projects_app.callback()
def list_projects(context: typer.Context, as_json: AsJson = False, data: StackFolder = None) -> None:
    """List the projects and their limits. `projects set` changes them."""
    if context.invoked_subcommand is not None:
        if as_json or data:
            raise typer.BadParameter(f"put options after `{context.invoked_subcommand}`")
        return
    with Client(data_dir=data) as client:
        projects = client.projects()
    print_json(projects) if as_json else print_rich(terminal.project_table(projects))


@projects_app.command("add")
def add_project(slug: ProjectName, as_json: AsJson = False, data: StackFolder = None) -> None:
    """Add a project without limits. `calibrl projects set` sets some. Requires an admin."""
    with Client(data_dir=data) as client:
        project = client.add_project(slug)
    print_json(project) if as_json else print_rich(terminal.project_table([project]))


@projects_app.command("remove")
def remove_project(slug: ProjectName, data: StackFolder = None) -> None:
    """Remove a project that has no jobs, datasets and studies. Requires an admin."""
    with Client(data_dir=data) as client:
        client.remove_project(slug)
    print_rich(f"removed {slug}")


@projects_app.command("set")
def set_project(
    slug: ProjectName,
    weight: Annotated[
        float | None, typer.Option(help="Fair-share weight relative to other projects.", show_default=False)
    ] = None,
    max_gpus: Annotated[
        Limit, _limit("--max-gpus", "Maximum number of GPUs that its jobs use at the same time.")
    ] = None,
    max_queued: Annotated[Limit, _limit("--max-queued", "Maximum number of waiting jobs.")] = None,
    max_priority: Annotated[
        str | None,
        typer.Option(help="Highest priority of its jobs: low, normal, high, none (any).", show_default=False),
    ] = None,
    max_run_hours: Annotated[Limit, _limit("--max-run-hours", "Maximum run time of a job in hours.")] = None,
    budget_hours: Annotated[Limit, _limit("--budget-hours", "Slot-hours per calendar month.")] = None,
    user_budget_hours: Annotated[
        Limit, _limit("--user-budget-hours", "Slot-hours per calendar month and user.")
    ] = None,
    retention_days: Annotated[
        Limit, _limit("--retention-days", "Days until the data of ended jobs is deleted.")
    ] = None,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Change the limits of a project. Limits that are not given stay the same."""
    limits = {
        "weight": weight,
        "max_gpus": max_gpus,
        "max_queued": max_queued,
        "max_priority": inf if max_priority == "none" else max_priority,
        "max_run_hours": max_run_hours,
        "budget_slot_hours": budget_hours,
        "user_budget_slot_hours": user_budget_hours,
        "retention_days": retention_days,
    }
    changes = {name: None if value == inf else value for name, value in limits.items() if value is not None}
    with Client(data_dir=data) as client:
        project = client.change_project(slug, changes)
    print_json(project) if as_json else print_rich(terminal.project_table([project]))


@app.command("usage", rich_help_panel=QUEUE)
def show_usage(as_json: AsJson = False, data: StackFolder = None) -> None:
    """List the slot-hours of this month per project and user."""
    with Client(data_dir=data) as client:
        usage = client.usage()
    if as_json:
        print_json(usage)
    else:
        print_rich(terminal.usage_table(usage) if usage else "No slot-hours were used this month.")
