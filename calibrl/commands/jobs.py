"""Commands of jobs: submit, plan, fork, list, label, note, cancel, pause, resume, retry, priority."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from calibrl.client import CalibrlError, Client
from calibrl.client.address import job_page_url
from calibrl.commands import completion, follow_job
from calibrl.commands.arguments import (
    JOBS,
    AsJson,
    JobArgument,
    Moment,
    StackFolder,
    moment,
    print_json,
    print_rich,
    read_label,
)
from calibrl.schemas import CheckpointChoice, Job, JobSort, JobStatus, Priority
from calibrl.specfile import read_changes, read_config, read_spec, read_specs
from calibrl.views import plan_summary, terminal

app = typer.Typer()

SpecFile = Annotated[Path, typer.Argument(metavar="FILE", help="Spec of a job: .yaml or .json; - is standard input.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a field of the spec: algorithm.negative_slope=0.3"),
]


def _checkpoint(text: str) -> CheckpointChoice:
    if text in ("best", "last"):
        return text  # type: ignore[return-value]
    if not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is not best, last or a step")
    return int(text)


Unset = Annotated[
    list[str] | None,
    typer.Option("--unset", metavar="KEY", help="Remove a field of the spec: data.columns. Can be repeated."),
]


@app.command(rich_help_panel=JOBS)
def submit(
    file: SpecFile,
    overrides: Overrides = None,
    unset: Unset = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end. Exit code 0 if it succeeded, else 1.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Like `calibrl watch` after the submission.")] = False,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Submit a job, or the jobs of a pipeline, and print each id. FILE `-` is standard input."""
    spec = read_specs(file, overrides or [], unset or [])
    with Client(data_dir=data) as client:
        jobs = client.submit_pipeline(spec) if isinstance(spec, list) else [client.submit(spec)]
        if as_json:
            print_json(jobs if isinstance(spec, list) else jobs[0])
        else:
            typer.echo("\n".join(str(job.id) for job in jobs))
        _say_what_is_next(jobs[-1], data, waits=wait or watch)
        if watch:
            ended = [follow_job.watch(client, job.id) for job in jobs]
        elif wait:
            ended = [follow_job.last_state(client, job.id) for job in jobs]
        else:
            return
    raise typer.Exit(0 if all(job.status is JobStatus.SUCCEEDED for job in ended) else 1)


def _say_what_is_next(job: Job, data: Path | None, *, waits: bool) -> None:
    """Print the page of a job of the local stack, and the next command, on stderr."""
    option = f" --data {shlex.quote(str(data))}" if data else ""
    if page := job_page_url(job.id, data):
        typer.echo(f"Dashboard: {page}", err=True)
    if not waits:
        typer.echo(f"Progress: calibrl watch {str(job.id)[:8]}{option}", err=True)


@app.command("open", rich_help_panel=JOBS)
def open_page(job: JobArgument, data: StackFolder = None) -> None:
    """Open the page of a job in the dashboard of the local stack, and print its address."""
    with Client(data_dir=data) as client:
        page = job_page_url(client.find_job(job).id, data)
    if page is None:
        raise CalibrlError("the address of the dashboard is known of a local stack only: open the job there by its id")
    typer.echo(page)
    typer.launch(page)


@app.command(rich_help_panel=JOBS)
def plan(
    file: SpecFile,
    overrides: Overrides = None,
    unset: Unset = None,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Dry run: show data, memory, expected start and warnings of a job. No job is submitted."""
    spec = read_spec(file, overrides or [], unset or [])
    with Client(data_dir=data) as client:
        job_plan = client.plan(spec)
    print_json(job_plan) if as_json else print_rich(plan_summary.plan_page(job_plan))


@app.command(rich_help_panel=JOBS)
def config(file: SpecFile, overrides: Overrides = None, unset: Unset = None) -> None:
    """Print the config of a spec as JSON, for the trainer without the service."""
    print_json(read_config(file, overrides or [], unset or []))


@app.command(rich_help_panel=JOBS)
def fork(
    job: JobArgument,
    checkpoint: Annotated[
        str, typer.Option(metavar="best|last|STEP", help="Checkpoint of a training job from which the new job starts.")
    ] = "best",
    overrides: Overrides = None,
    unset: Unset = None,
    name: Annotated[str | None, typer.Option(help="Name of the new job.", show_default="NAME-fork")] = None,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Submit the spec of a job again, from one of its checkpoints and with changes. Print the new id."""
    begins, changes = _checkpoint(checkpoint), read_changes(overrides or [], unset or [])
    with Client(data_dir=data) as client:
        new_job = client.fork(client.find_job(job).id, checkpoint=begins, changes=changes, name=name)
    print_json(new_job) if as_json else typer.echo(str(new_job.id))


@app.command("jobs", rich_help_panel=JOBS)
def list_jobs(
    status: Annotated[list[JobStatus] | None, typer.Option(help="Only jobs with this status. Can be repeated.")] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="train|evaluate|audit|what_if|bisect", help="Only jobs of this kind.")
    ] = None,
    project: Annotated[
        str | None, typer.Option(metavar="SLUG", autocompletion=completion.projects, help="Only jobs of this project.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Only jobs that this user submitted.")] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="KEY=VALUE", help="Only jobs with this label. Can be repeated."),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--search", "-q", metavar="TEXT", help="Only jobs with this text in the name or the notes."),
    ] = None,
    since: Annotated[
        Moment, typer.Option(parser=moment, metavar="TIME", help="Only jobs submitted at this time or later.")
    ] = None,
    until: Annotated[
        Moment, typer.Option(parser=moment, metavar="TIME", help="Only jobs submitted before this time.")
    ] = None,
    sort: Annotated[JobSort, typer.Option(help="Sort key. Prefix with - for descending.")] = "-created",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number of jobs.")] = 100,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """List jobs, newest first."""
    filter = dict(map(read_label, labels or []))
    with Client(data_dir=data) as client:
        page = client.jobs(
            status=status,
            kind=kind,
            project=project,
            user=user,
            labels=filter,
            created_after=since,
            created_before=until,
            q=text,
            sort=sort,
            limit=limit,
        )
    if as_json:
        print_json(page.data)
        return
    print_rich(terminal.job_table(page.data) if page.data else "No jobs.")
    if page.has_more:
        typer.echo("More jobs match. Use --limit to show up to 1000.", err=True)


@app.command(rich_help_panel=JOBS)
def label(
    job: JobArgument,
    labels: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Labels to set.", show_default=False)
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Key of a label to remove. Can be repeated.")
    ] = None,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Set or remove labels of a job. Print the resulting labels."""
    changes: dict[str, str | None] = dict.fromkeys(remove or [])
    changes |= dict(map(read_label, labels or []))
    if not changes:
        raise typer.BadParameter("give labels to set, or --remove", param_hint="KEY=VALUE")
    with Client(data_dir=data) as client:
        changed = client.edit(client.find_job(job).id, labels=changes)
    if as_json:
        print_json(changed)
    else:
        typer.echo("\n".join(f"{key}={terminal.plain(value)}" for key, value in changed.labels.items()) or "no labels")


@app.command(rich_help_panel=JOBS)
def note(
    job: JobArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Replaces the notes of the job; '' removes them.")],
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Set the notes of a job."""
    with Client(data_dir=data) as client:
        changed = client.edit(client.find_job(job).id, notes=text)
    print_json(changed) if as_json else typer.echo(terminal.headline(changed))


VERBS: dict[str, tuple[Callable[[Client, UUID], Job], str]] = {
    "cancel": (Client.cancel, "Cancel a job. A running job stops within seconds."),
    "pause": (Client.pause, "Pause a job. A running job saves a checkpoint and frees its slot."),
    "resume": (Client.resume, "Queue a paused job again. It continues from its last checkpoint."),
    "retry": (Client.retry, "Run a failed or cancelled job again, from its last checkpoint."),
}


def _add_verb(name: str, request: Callable[[Client, UUID], Job], help: str) -> None:
    def command(job: JobArgument, as_json: AsJson = False, data: StackFolder = None) -> None:
        with Client(data_dir=data) as client:
            _print_job(request(client, client.find_job(job).id), as_json)

    app.command(name, rich_help_panel=JOBS, help=help)(command)


for _name, (_request, _help) in VERBS.items():
    _add_verb(_name, _request, _help)


@app.command(rich_help_panel=JOBS)
def remove(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...", help="Jobs that have ended, named as elsewhere.")],
    data: StackFolder = None,
) -> None:
    """Remove jobs that have ended, with their metrics, samples and checkpoints. This cannot be undone."""
    with Client(data_dir=data) as client:
        found = [client.find_job(job) for job in jobs]
        for job in found:
            client.remove(job.id)
            typer.echo(f"removed {job.id} {terminal.plain(job.name)}")


@app.command("priority", rich_help_panel=JOBS)
def set_priority(
    job: JobArgument,
    priority: Annotated[Priority, typer.Argument(help="Priority class. Jobs of a higher class start first.")],
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Change the priority class of a job."""
    with Client(data_dir=data) as client:
        _print_job(client.prioritise(client.find_job(job).id, priority), as_json)


def _print_job(job: Job, as_json: bool) -> None:
    print_json(job) if as_json else typer.echo(terminal.headline(job))
