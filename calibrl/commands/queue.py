"""The commands about the queue: who waits and why, the machines, what projects may use, and what is asked of a job."""

from collections.abc import Callable
from math import inf, isfinite, nan
from typing import Annotated, Any
from uuid import UUID

import typer

from calibrl.client import CalibrlError, Client
from calibrl.commands.arguments import JOBS, QUEUE, AsJson, JobArgument, StackFolder, find, print_json, print_rich
from calibrl.schemas import Job, Priority, ProjectSettings
from calibrl.views import terminal

NOT_FOUND = 404  # HTTP
app = typer.Typer()
projects_app = typer.Typer(invoke_without_command=True)
app.add_typer(projects_app, name="projects", rich_help_panel=QUEUE)

MachineArgument = Annotated[str, typer.Argument(metavar="NAME", help="A machine, as `calibrl workers` names it.")]
OneProject = Annotated[str | None, typer.Option("--project", metavar="SLUG", help="Only this project's.")]
Limit = float | None  # infinity: none


def _number(text: str) -> float:
    """A number, or infinity for `none`."""
    if text == "none":
        return inf
    try:
        number = float(text)
    except ValueError:
        number = nan
    if not isfinite(number):
        raise typer.BadParameter(f"{text!r} is neither a number nor `none`")
    return int(number) if number.is_integer() else number


def _limit(name: str, help: str) -> Any:
    return typer.Option(name, parser=_number, metavar="N|none", help=help, show_default=False)


VERBS: dict[str, tuple[Callable[[Client, UUID], Job], str]] = {
    "cancel": (Client.cancel, "Cancel a job. A running job stops within seconds."),
    "pause": (Client.pause, "Pause a job. A running job saves a checkpoint and frees its slot."),
    "resume": (Client.resume, "Queue a paused job again. It continues from its last checkpoint."),
    "retry": (Client.retry, "Run a failed or cancelled job again, from its last checkpoint."),
}


def _add_verb(name: str, request: Callable[[Client, UUID], Job], help: str) -> None:
    def command(job: JobArgument, as_json: AsJson = False, data: StackFolder = None) -> None:
        with Client(data_dir=data) as client:
            _print_job(request(client, find(client, job).id), as_json)

    app.command(name, rich_help_panel=JOBS, help=help)(command)


for _name, (_request, _help) in VERBS.items():
    _add_verb(_name, _request, _help)


@app.command("priority", rich_help_panel=JOBS)
def prioritise(
    job: JobArgument,
    priority: Annotated[Priority, typer.Argument(help="Its class; a higher one goes first.")],
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Give a job another priority class."""
    with Client(data_dir=data) as client:
        _print_job(client.prioritise(find(client, job).id, priority), as_json)


@app.command("queue", rich_help_panel=QUEUE)
def show_queue(project: OneProject = None, as_json: AsJson = False, data: StackFolder = None) -> None:
    """List the jobs that have not started: position, when each may start, and why it waits."""
    with Client(data_dir=data) as client:
        entries = client.queue(project)
    if as_json:
        print_json(entries)
    else:
        print_rich(terminal.queue_table(entries) if entries else "Nobody waits.")


@app.command("workers", rich_help_panel=QUEUE)
def list_workers(as_json: AsJson = False, data: StackFolder = None) -> None:
    """List the machines that run jobs: their slots, how busy their GPUs are, and with what."""
    with Client(data_dir=data) as client:
        machines = client.workers()
    if as_json:
        print_json(machines)
    else:
        print_rich(terminal.worker_table(machines) if machines else "No machines yet.")


@app.command(rich_help_panel=QUEUE)
def drain(
    name: MachineArgument,
    now: Annotated[bool, typer.Option("--now", help="Give back what it runs, from a checkpoint.")] = False,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Have a machine finish what it runs and take no more."""
    with Client(data_dir=data) as client:
        machine = client.drain(name, now=now)
    print_json(machine) if as_json else typer.echo(terminal.machine_line(machine))


@app.command(rich_help_panel=QUEUE)
def undrain(name: MachineArgument, as_json: AsJson = False, data: StackFolder = None) -> None:
    """Have a drained machine take jobs again."""
    with Client(data_dir=data) as client:
        machine = client.undrain(name)
    print_json(machine) if as_json else typer.echo(terminal.machine_line(machine))


@projects_app.callback()
def list_projects(context: typer.Context, as_json: AsJson = False, data: StackFolder = None) -> None:
    """List the projects and what each may use; `projects set` changes it."""
    if context.invoked_subcommand is not None:
        if as_json or data:
            raise typer.BadParameter(f"options go after `{context.invoked_subcommand}`")
        return
    with Client(data_dir=data) as client:
        found = client.projects()
    print_json(found) if as_json else print_rich(terminal.project_table(found))


@projects_app.command("set")
def set_project(
    slug: Annotated[str, typer.Argument(metavar="SLUG", help="The project; it is added if there is none.")],
    weight: Annotated[float | None, typer.Option(help="Its share beside other projects'.", show_default=False)] = None,
    max_gpus: Annotated[Limit, _limit("--max-gpus", "GPUs that its jobs may hold at once.")] = None,
    max_queued: Annotated[Limit, _limit("--max-queued", "Jobs that may wait at once.")] = None,
    budget_hours: Annotated[Limit, _limit("--budget-hours", "Slot-hours a calendar month.")] = None,
    user_budget_hours: Annotated[Limit, _limit("--user-budget-hours", "The same, for each user.")] = None,
    retention_days: Annotated[Limit, _limit("--retention-days", "How long ended jobs are kept.")] = None,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Add a project, or change what it may use; what is not given stays as it is."""
    given = {
        "weight": weight,
        "max_gpus": max_gpus,
        "max_queued": max_queued,
        "budget_slot_hours": budget_hours,
        "user_budget_slot_hours": user_budget_hours,
        "retention_days": retention_days,
    }
    changes = {name: None if value == inf else value for name, value in given.items() if value is not None}
    with Client(data_dir=data) as client:
        project = client.put_project(slug, _settings(client, slug) | changes)
    print_json(project) if as_json else print_rich(terminal.project_table([project]))


@app.command("usage", rich_help_panel=QUEUE)
def show_usage(as_json: AsJson = False, data: StackFolder = None) -> None:
    """List the slot-hours of this month, by project and user."""
    with Client(data_dir=data) as client:
        found = client.usage()
    if as_json:
        print_json(found)
    else:
        print_rich(terminal.usage_table(found) if found else "Nothing was used this month.")


def _settings(client: Client, slug: str) -> dict[str, Any]:
    """What a project may use now; nothing where there is no such project yet."""
    try:
        return client.project(slug).model_dump(include={*ProjectSettings.model_fields})
    except CalibrlError as error:
        if error.status != NOT_FOUND:
            raise
        return {}


def _print_job(job: Job, as_json: bool) -> None:
    print_json(job) if as_json else typer.echo(terminal.headline(job))
