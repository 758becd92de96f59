"""Commands of studies: run, list, status, report, cancel, remove."""

import time
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from rich.live import Live

from calibrl.client import CalibrlError, Client, read_stack
from calibrl.commands import completion
from calibrl.commands.arguments import AsJson, StackFolder, console, print_json, print_rich
from calibrl.schemas import Study, StudyStatus
from calibrl.settings import ClientSettings
from calibrl.studies.files import read_study
from calibrl.studies.pages import job_pages
from calibrl.studies.results import read_results, write_new_results
from calibrl.studies.written import write_report
from calibrl.views import studies

POLL_SECONDS = 2.0
PATIENCE = 600.0  # seconds without an answer of the service after which `run` gives up; the study goes on
INTERRUPTED = 130  # exit code of a command that Ctrl-C ended
app = typer.Typer(no_args_is_help=True, help="Run studies: arms and seeds, compared on the same prompts.")

StudyFile = Annotated[Path, typer.Argument(metavar="FILE", help="Description of a study: .yaml or .json.")]
StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="Name or id of a study.")]
InProject = Annotated[
    str | None,
    typer.Option(
        "--project",
        metavar="SLUG",
        autocompletion=completion.projects,
        help="Project of the study.",
        show_default="any",
    ),
]


@app.command()
def run(
    file: StudyFile,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of finished runs, one file each: those in it are used and not run again, new ones are added.",
        ),
    ] = None,
    data: StackFolder = None,
) -> None:
    """Submit a study and follow it to its end. Run it again to continue a study that has ended, or after a change of
    the file. Exit code 1: a job failed, or the study was cancelled."""
    description = read_study(file)
    with Client(data_dir=data) as client:
        for finished in read_results(results) if results else ():
            client.add_study_run(finished, project=str(description.base.get("project", "default")))
        study = client.post_study(description)
        try:
            study = _follow(client, study, results)
        except KeyboardInterrupt:
            cancel = f"`calibrl study cancel {study.name}`"
            typer.echo(f"The study goes on. Follow it with `calibrl study run {file}`, end it with {cancel}.", err=True)
            raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(0 if study.status is StudyStatus.SUCCEEDED else 1)


@app.command("list")
def list_studies(project: InProject = None, as_json: AsJson = False, data: StackFolder = None) -> None:
    """List the newest studies."""
    with Client(data_dir=data) as client:
        found = client.studies(project=project).data
    print_json(found) if as_json else print_rich(studies.study_table(found))


@app.command()
def status(study: StudyArgument, project: InProject = None, as_json: AsJson = False, data: StackFolder = None) -> None:
    """Show the progress of a study."""
    with Client(data_dir=data) as client:
        found = client.study(_find(client, study, project))
    if as_json:
        print_json(found)
        return
    typer.echo(studies.progress_line(found))
    for note in studies.note_lines(found):
        typer.echo(note)


@app.command()
def report(
    study: StudyArgument,
    folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder of the report: NAME.md, NAME.html and figures.")
    ] = Path(),
    dashboard: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Address of the dashboard, for links to jobs.", show_default="local stack"),
    ] = None,
    project: InProject = None,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Write the report of a study as Markdown and HTML, of the runs that have ended so far."""
    with Client(data_dir=data) as client:
        found = client.study_report(_find(client, study, project))
        address = dashboard or _dashboard(client, data)
    if as_json:
        print_json(found)
        return
    for path in write_report(found, folder, job_pages(client.url, address)):
        typer.echo(str(path))


@app.command()
def cancel(study: StudyArgument, project: InProject = None, data: StackFolder = None) -> None:
    """Cancel a study and the open jobs that it submitted."""
    with Client(data_dir=data) as client:
        found = client.cancel_study(_find(client, study, project))
    typer.echo(f"{found.name} is {found.status}")


@app.command()
def remove(study: StudyArgument, project: InProject = None, data: StackFolder = None) -> None:
    """Remove a study that has ended. Its jobs stay."""
    with Client(data_dir=data) as client:
        client.remove_study(_find(client, study, project))


def _find(client: Client, study: str, project: str | None) -> UUID:
    """Return the id of the study that an argument names.

    Raises:
        typer.BadParameter: no study, or more than one, matches.
    """
    try:
        return UUID(study)
    except ValueError:
        found = client.studies(project=project, name=study).data
    if not found:
        raise typer.BadParameter(f"there is no study {study!r}; `calibrl study list` lists them", param_hint="STUDY")
    if len(found) > 1:
        projects = ", ".join(one.project for one in found)
        raise typer.BadParameter(f"projects {projects} have a study {study!r}: give --project", param_hint="STUDY")
    return found[0].id


def _dashboard(client: Client, data: Path | None) -> str | None:
    """Return the address of the dashboard of the local stack that the client asks, without its token."""
    stack = read_stack(data or ClientSettings.read().data_dir)
    if stack is None or stack.dashboard_url is None or stack.api_url != client.url:
        return None
    return stack.dashboard_url.partition("/signin")[0]


def _follow(client: Client, study: Study, results: Path | None) -> Study:
    """Show the progress of a study until it has ended, and write the results of its runs."""
    screen = console()
    shown, ended, answered = None, None, time.monotonic()
    with Live(console=screen, auto_refresh=False) as live:
        while True:
            progress = study.progress
            if screen.is_terminal:
                live.update(studies.progress_view(study), refresh=True)
            elif shown != (shown := (study.status, progress.succeeded, progress.failed, progress.running)):
                typer.echo(studies.progress_line(study))
            try:
                if results and ended != progress.succeeded:
                    write_new_results(client, study, results)
                    ended = progress.succeeded
                if study.status.final:
                    break
                time.sleep(POLL_SECONDS)
                study, answered = client.study(study.id), time.monotonic()
            except CalibrlError as error:
                if error.status is not None or time.monotonic() - answered > PATIENCE:
                    raise
                screen.print(f"calibrl: {error}; trying again", soft_wrap=True, markup=False)
    if not screen.is_terminal:
        for note in studies.note_lines(study):
            typer.echo(note)
    return study
