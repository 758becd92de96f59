"""Commands of studies: run, status, report."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from calibrl.client import CalibrlError, Client, read_stack
from calibrl.commands.arguments import AsJson, StackFolder, console, print_json, print_rich
from calibrl.extras import require
from calibrl.schemas import StudySpec
from calibrl.settings import ClientSettings
from calibrl.studies.files import read_study
from calibrl.studies.runner import StudyRunner
from calibrl.studies.state import Progress
from calibrl.views import studies

POLL_SECONDS = 5.0
PATIENCE = 600.0  # seconds without an answer of the service after which `run` gives up; running it again continues
INTERRUPTED = 130  # exit code of a command that Ctrl-C ended
app = typer.Typer(no_args_is_help=True, help="Run studies: arms and seeds, compared on the same prompts.")

StudyFile = Annotated[Path, typer.Argument(metavar="FILE", help="Description of a study: .yaml or .json.")]


@app.command()
def run(file: StudyFile, data: StackFolder = None) -> None:
    """Submit and follow the jobs of a study until all have ended. Run it again to continue. Exit code 1: one failed."""
    study = read_study(file)
    with Client(data_dir=data) as client:
        runner = _runner(client, study)
        try:
            progress = _follow(runner)
        except KeyboardInterrupt:
            typer.echo(f"Stopped. Submitted jobs run on; continue with `calibrl study run {file}`.", err=True)
            raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(1 if progress.failed else 0)


@app.command()
def status(file: StudyFile, as_json: AsJson = False, data: StackFolder = None) -> None:
    """Show the progress of a study. Submits nothing."""
    study = read_study(file)
    with Client(data_dir=data) as client:
        progress = _runner(client, study).read()
    if as_json:
        print_json(progress)
        return
    typer.echo(studies.progress_line(study.name, progress))
    for note in progress.notes:
        typer.echo(note)


@app.command()
def report(
    file: StudyFile,
    folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder of the report: NAME.md, NAME.html and figures.")
    ] = Path(),
    dashboard: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Address of the dashboard, for links to jobs.", show_default="local stack"),
    ] = None,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Write the report of a study as Markdown and HTML, of the runs that have ended so far."""
    study = read_study(file)
    require("studies", "calibrl study report")
    from calibrl.studies.measurements import Measurements
    from calibrl.studies.report import build_report
    from calibrl.studies.written import job_pages, write_report

    with Client(data_dir=data) as client:
        found = build_report(_runner(client, study), Measurements(client))
        address = dashboard or _dashboard(client, data)
    if as_json:
        print_json(found)
        return
    for path in write_report(found, folder, job_pages(client.url, address)):
        typer.echo(str(path))


def _runner(client: Client, study: StudySpec) -> StudyRunner:
    if study.stop is None:
        return StudyRunner(client, study)
    require("studies", "a study with a stop rule")
    from calibrl.studies.looks import look_of
    from calibrl.studies.measurements import Measurements

    return StudyRunner(client, study, look_of(study, Measurements(client)))


def _dashboard(client: Client, data: Path | None) -> str | None:
    """Return the address of the dashboard of the local stack that the client asks, without its token."""
    stack = read_stack(data or ClientSettings.read().data_dir)
    if stack is None or stack.dashboard_url is None or stack.api_url != client.url:
        return None
    return stack.dashboard_url.partition("/signin")[0]


def _follow(runner: StudyRunner) -> Progress:
    """Run the steps of a study until it is done, and show the progress."""
    screen, name = console(), runner.study.name
    shown, answered = None, time.monotonic()
    with Live(console=screen, auto_refresh=False) as live:
        while True:
            try:
                progress = runner.step()
                answered = time.monotonic()
            except CalibrlError as error:
                if error.status is not None or time.monotonic() - answered > PATIENCE:
                    raise
                screen.print(f"calibrl: {error}; trying again", soft_wrap=True, markup=False)
                time.sleep(POLL_SECONDS)
                continue
            if screen.is_terminal:
                live.update(studies.progress_view(name, progress), refresh=True)
            elif shown != (shown := (progress.succeeded, progress.failed, progress.running)):
                typer.echo(studies.progress_line(name, progress))
            if progress.done:
                break
            time.sleep(POLL_SECONDS)
    if progress.notes and not screen.is_terminal:
        print_rich(studies.notes(progress))
    return progress
