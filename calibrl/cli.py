"""The command line `calibrl`. Each error is one line on stderr. Exit code 2: invalid input, 1: a failure."""

import shlex
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from calibrl import presets
from calibrl.client import CalibrlError, Client
from calibrl.commands import (
    access,
    bisect,
    datasets,
    evaluations,
    export,
    follow_job,
    hours,
    jobs,
    metrics,
    profiles,
    projects,
    prompts,
    queue,
    reproduce,
    studies,
    verdicts,
    what_if,
    workers,
)
from calibrl.commands.arguments import (
    HERE,
    JOBS,
    AsJson,
    JobArgument,
    StackFolder,
    console,
    find,
    print_json,
    print_rich,
)
from calibrl.extras import MissingExtraError, require
from calibrl.schemas import JobStatus
from calibrl.schemas.spec_schema import job_spec_schema
from calibrl.settings import ClientSettings, SettingsError
from calibrl.specfile import SpecError
from calibrl.views import terminal

POLL_SECONDS = 1.0
BAD_INPUT = frozenset({400, 404, 413, 422})  # HTTP statuses of an invalid request


class _CommandLine(TyperGroup):
    """Turns each exception of a command into one line on stderr and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        arguments = list(sys.argv[1:] if args is None else args) or ["--help"]
        try:
            code = super().main(arguments, prog_name, complete_var, False, windows_expand_args, **extra)
        except typer.TyperException as error:
            command = getattr(getattr(error, "ctx", None), "command_path", "calibrl")
            code = _complain(2, f"{error.format_message()} (see `{command} --help`)")
        except (MissingExtraError, SettingsError, SpecError) as error:
            code = _complain(2, str(error))
        except CalibrlError as error:
            code = _complain(2 if error.status in BAD_INPUT else 1, str(error))
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            message = f"{type(error).__name__}: {error} (at {frame.filename}:{frame.lineno})"
            code = _complain(1, f"internal error, {message}")
        sys.exit(code)


def _complain(code: int, message: str) -> int:
    typer.echo(f"calibrl: {' '.join(terminal.plain(message).split())}", err=True)
    return code


app = typer.Typer(
    cls=_CommandLine,
    pretty_exceptions_enable=False,
    help="Train vision-language models with CalibRL: submit and watch jobs, or run the service here.",
    epilog="JOB is an id, a prefix of an id, or `latest`. Select the service with --profile or CALIBRL_PROFILE, or "
    "with CALIBRL_API_URL and CALIBRL_API_KEY. Default: the local stack, `calibrl up`, on this machine.",
)
DataFolder = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Folder of all data.", show_default="~/.calibrl")
]
Port = Annotated[
    int | None, typer.Option("--port", min=1, max=65535, help="Port of the API.", show_default="that of the last start")
]
DashboardPort = Annotated[
    int | None,
    typer.Option(
        "--dashboard-port", min=1, max=65535, help="Port of the dashboard.", show_default="that of the last start"
    ),
]


@app.command(rich_help_panel=HERE)
def up(data: DataFolder = None, port: Port = None, dashboard_port: DashboardPort = None) -> None:
    """Run the service on this machine until Ctrl-C: database, queue, API, a worker and the dashboard."""
    require("local", "calibrl up")
    from calibrl.stack.local import LocalStack, StackError

    _end_like_ctrl_c(signal.SIGTERM, signal.SIGHUP)
    folder = _data_dir(data)
    options = f" --data {shlex.quote(str(folder))}" if data else ""
    stack = LocalStack(folder, api_port=port, dashboard_port=dashboard_port)
    typer.echo("Starting the database, the queue, the API, a worker and the dashboard ...")
    try:
        with stack:
            print_rich(_addresses(stack.dashboard_url, stack.api_url, folder, options))
            with suppress(KeyboardInterrupt):
                while True:
                    for said in stack.restart_ended():
                        typer.echo(f"calibrl: {said}", err=True)
                    time.sleep(POLL_SECONDS)
            typer.echo("Stopping; a running job saves a checkpoint first ...")
    except StackError as error:
        raise typer.Exit(_complain(1, str(error))) from error
    except KeyboardInterrupt:
        pass  # during the start, or a second Ctrl-C
    typer.echo("Stopped. No process is left.")


@app.command(rich_help_panel=HERE)
def demo(
    exit: Annotated[bool, typer.Option("--exit", help="Stop the service when the jobs are done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as one JSON object.")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Also train with GRPO and compare both.")] = False,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Random seed of weights, data order and sampling.")
    ] = 0,
    data: DataFolder = None,
    port: Port = None,
    dashboard_port: DashboardPort = None,
) -> None:
    """Train a tiny vision-language model with CalibRL from start to finish, live in the dashboard."""
    require("local", "calibrl demo")
    from calibrl.commands.demo import run

    _end_like_ctrl_c(signal.SIGTERM, signal.SIGHUP)
    code = run(
        _data_dir(data),
        exit_when_done=exit,
        as_json=as_json,
        compare=compare,
        seed=seed,
        api_port=port,
        dashboard_port=dashboard_port,
    )
    raise typer.Exit(code)


@app.command("presets", rich_help_panel=JOBS)
def show_presets(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Preset to print as YAML.", show_default=False)
    ] = None,
) -> None:
    """List the preset specs, or print one: `calibrl presets calibrl > my.yaml; calibrl submit my.yaml`."""
    if name is None:
        width = max(map(len, presets.names()))
        typer.echo("\n".join(f"{one:<{width}}  {presets.summary(one)}" for one in presets.names()))
    elif name in presets.names():
        typer.echo(presets.text(name), nl=False)
    else:
        raise typer.BadParameter(f"there is no preset {name!r}; `calibrl presets` lists them", param_hint="NAME")


@app.command("verify", rich_help_panel=JOBS)
def verify_answer(
    truth: Annotated[str, typer.Argument(help="The correct answer, as in the data.")],
    answer: Annotated[str, typer.Argument(help="The answer of a completion.")],
    verifier: Annotated[
        str, typer.Option(help='Type of the verifier, or its settings as JSON: \'{"type": "numeric", "decimals": 2}\'.')
    ] = "math",
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Show the rule that decided, and how both texts were read."),
    ] = False,
) -> None:
    """Judge one answer by a verifier, as a training job does. Exit code 1: the answer is wrong."""
    require("trainer", "calibrl verify")
    from calibrl.commands import verify

    found = verify.judged(verifier, truth, answer)
    print_rich(verify.page(found, truth, answer, explain=explain))
    raise typer.Exit(found.score < 0.5)


@app.command("schema", rich_help_panel=JOBS)
def show_schema() -> None:
    """Print the JSON Schema of a job spec, with which editors complete YAML: `calibrl schema > job-spec.json`."""
    print_json(job_spec_schema())


@app.command(rich_help_panel=JOBS)
def show(job: JobArgument, as_json: AsJson = False, data: StackFolder = None) -> None:
    """Show a job: status, events, checkpoints, result and spec."""
    with Client(data_dir=data) as client:
        shown = client.job(find(client, job).id)
        if as_json:
            print_json(shown)
        else:
            waits = None
            if not (shown.status.held or shown.status.final):
                waits = next((entry for entry in client.queue(shown.project) if entry.job_id == shown.id), None)
            print_rich(
                terminal.job_page(shown, waits, follow_job.history(client, shown.id), client.checkpoints(shown.id))
            )


@app.command(rich_help_panel=JOBS)
def watch(job: JobArgument, data: StackFolder = None) -> None:
    """Show the progress and metrics of a job until it ends. Exit code 0 if it succeeded, else 1."""
    with Client(data_dir=data) as client:
        summary = find(client, job)
        screen = console()
        shown = None
        with Live(console=screen, auto_refresh=False) as live:
            for now, rows, happened in follow_job.follow(client, summary.id):
                for warning in filter(None, map(terminal.warning, happened)):
                    screen.print(warning, soft_wrap=True)  # stays above what is drawn live
                if screen.is_terminal:
                    live.update(terminal.live_view(now, rows), refresh=True)
                elif shown != (shown := (now.status, 10 * now.step // (now.steps_total or 1))):
                    typer.echo(terminal.headline(now))
    raise typer.Exit(0 if now.status is JobStatus.SUCCEEDED else 1)


@app.command(rich_help_panel=JOBS)
def logs(
    job: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the job ends.")] = False,
    data: StackFolder = None,
) -> None:
    """Print the log of a job."""
    with Client(data_dir=data) as client:
        id = find(client, job).id
        for text in follow_job.log_text(client, id) if follow else follow_job.LogReader(client, id).rest():
            typer.echo(terminal.plain(text), nl=False)


app.add_typer(evaluations.app)
app.add_typer(what_if.app)
app.add_typer(bisect.app)
app.add_typer(datasets.app)
app.add_typer(jobs.app)
app.add_typer(reproduce.app)
app.add_typer(queue.app)
app.add_typer(workers.app)
app.add_typer(projects.app)
app.add_typer(hours.app)
app.add_typer(prompts.app)
app.add_typer(verdicts.app)
app.add_typer(export.app)
app.add_typer(metrics.app)
app.add_typer(studies.app, name="study", rich_help_panel=JOBS)
access.install(app)
profiles.install(app)


def _data_dir(folder: Path | None) -> Path:
    return folder.expanduser().absolute() if folder else ClientSettings.read().data_dir


def _end_like_ctrl_c(*numbers: signal.Signals) -> None:
    """Make these signals end the command as Ctrl-C does: each `with` block then cleans up."""
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)


def _addresses(dashboard_url: str | None, api_url: str, folder: Path, options: str) -> Table:
    table = Table.grid(padding=(0, 2))
    for label, value in {
        "Dashboard": dashboard_url or "none",
        "API": f"{api_url}/docs",
        "Data": str(folder),
        "Logs": str(folder / "logs"),
        "Submit a job": f"calibrl submit FILE.yaml{options}",
        "Stop": "Ctrl-C",
    }.items():
        table.add_row(label, Text(value, style="bold"))
    return table


def main() -> None:
    """Run the command `calibrl`."""
    app()


if __name__ == "__main__":
    main()
