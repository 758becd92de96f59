"""Commands of the local stack: up, down, status, env."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from calibrl.client import CalibrlError, Client, Stack, read_stack
from calibrl.client.address import address_and_key
from calibrl.commands.arguments import HERE, AsJson, StackFolder, print_json, print_rich
from calibrl.extras import require
from calibrl.folder_lock import is_held
from calibrl.settings import ClientSettings

POLL_SECONDS = 1.0
WAIT_SECONDS = 0.2  # between two looks at a stack that starts or stops
START_SECONDS = 300.0
STOP_SECONDS = 180.0
app = typer.Typer()

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
def up(
    data: DataFolder = None,
    port: Port = None,
    dashboard_port: DashboardPort = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when the service has started. `calibrl down` stops it.")
    ] = False,
) -> None:
    """Run the service on this machine until Ctrl-C: database, queue, API, a worker and the dashboard."""
    require("local", "calibrl up")
    from calibrl.stack.local import LocalStack, StackError

    folder = data_dir(data)
    if detach:
        started = _detached(folder, port, dashboard_port)
        _print_addresses(started.dashboard_url, started.api_url, folder, f"calibrl down{_option(data)}")
        return
    end_like_ctrl_c(signal.SIGTERM, signal.SIGHUP)
    stack = LocalStack(folder, api_port=port, dashboard_port=dashboard_port)
    typer.echo("Starting the database, the queue, the API, a worker and the dashboard ...")
    try:
        with stack:
            _print_addresses(stack.dashboard_url, stack.api_url, folder, "Ctrl-C")
            with suppress(KeyboardInterrupt):
                while True:
                    for said in stack.restart_ended():
                        typer.echo(f"calibrl: {said}", err=True)
                    time.sleep(POLL_SECONDS)
            typer.echo("Stopping; a running job saves a checkpoint first ...")
    except StackError as error:
        raise CalibrlError(str(error)) from error
    except KeyboardInterrupt:
        pass  # during the start, or a second Ctrl-C
    typer.echo("Stopped. No process is left.")


@app.command(rich_help_panel=HERE)
def down(data: DataFolder = None) -> None:
    """Stop the service on this machine. A running job saves a checkpoint first."""
    folder = data_dir(data)
    stack = read_stack(folder)
    if stack is None:
        if folder.is_dir() and is_held(folder):
            raise CalibrlError(f"the service on {folder} is starting or stopping: try again")
        typer.echo(f"No service runs on {folder}.")
        return
    if stack.pid is None:
        raise CalibrlError(f"the service on {folder} was started by an earlier version: stop it with Ctrl-C")
    with suppress(ProcessLookupError):
        os.kill(stack.pid, signal.SIGTERM)
    if not _wait(STOP_SECONDS, lambda: not is_held(folder)):
        raise CalibrlError(f"the service on {folder} is still stopping after {STOP_SECONDS:.0f} s")
    typer.echo("Stopped. No process is left.")


@app.command(rich_help_panel=HERE)
def status(data: DataFolder = None, as_json: AsJson = False) -> None:
    """Show whether the service runs on this machine, with its addresses. Exit code 1: it does not run."""
    folder = data_dir(data)
    stack = read_stack(folder)
    if stack is None:
        print_json({"running": False, "data": str(folder)}) if as_json else typer.echo(f"No service runs on {folder}.")
        raise typer.Exit(1)
    with Client(data_dir=folder) as client:
        health = client.ready()
    if as_json:
        addresses = {"api_url": stack.api_url, "dashboard_url": stack.dashboard_url}
        print_json({"running": True, "data": str(folder), **addresses, "health": health})
    else:
        _print_addresses(stack.dashboard_url, stack.api_url, folder, f"calibrl down{_option(data)}")
        faults = [f"{name}: {found}" for name, found in health.checks.items() if found != "ok"]
        typer.echo("\n".join(faults) or "API, database and queue answer.")


@app.command(rich_help_panel=HERE)
def env(
    worker: Annotated[
        bool, typer.Option("--worker", help="Print the addresses that a second worker on this machine needs.")
    ] = False,
    data: StackFolder = None,
) -> None:
    """Print variables for other programs: `eval "$(calibrl env)"` sets CALIBRL_API_URL and CALIBRL_API_KEY."""
    if not worker:
        url, key = address_and_key(None, None, data)
        variables = {"CALIBRL_API_URL": url, "CALIBRL_API_KEY": key}
    else:
        folder = data_dir(data)
        stack = read_stack(folder)
        if stack is None or not (stack.database_url and stack.redis_url):
            raise CalibrlError(f"no service runs on {folder}: start it with `calibrl up{_option(data)}`")
        variables = {
            "DATABASE_URL": stack.database_url,
            "REDIS_URL": stack.redis_url,
            "CALIBRL_DATA_DIR": str(folder),
        }
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def data_dir(folder: Path | None) -> Path:
    """Return the data folder that an option names, or that of the settings."""
    return folder.expanduser().absolute() if folder else ClientSettings.read().data_dir


def end_like_ctrl_c(*numbers: signal.Signals) -> None:
    """Make these signals end the command as Ctrl-C does: each `with` block then cleans up."""
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)


def _detached(folder: Path, port: int | None, dashboard_port: int | None) -> Stack:
    """Start `calibrl up` in a session of its own, and return its stack when it has started."""
    from calibrl.stack.services import last_line

    log = folder / "logs" / "up.log"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        log.parent.mkdir(exist_ok=True)
        log.touch(mode=0o600)
        log.chmod(0o600)  # the printed address signs in
    except OSError as error:
        raise CalibrlError(f"{folder} can't be used: {error.strerror or error}") from error
    options = {"--port": port, "--dashboard-port": dashboard_port}
    given = [str(part) for option in options.items() if option[1] is not None for part in option]
    command = [sys.executable, "-m", "calibrl.cli", "up", "--data", str(folder), *given]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    typer.echo("Starting the database, the queue, the API, a worker and the dashboard ...")
    started = _wait(START_SECONDS, lambda: process.poll() is not None or _of_process(folder, process.pid))
    if process.poll() is not None:
        raise CalibrlError(last_line(log).removeprefix("calibrl: "))
    stack = read_stack(folder)
    if not started or stack is None:
        process.terminate()
        raise CalibrlError(f"the service did not start within {START_SECONDS:.0f} s: see {log}")
    return stack


def _of_process(folder: Path, pid: int) -> bool:
    stack = read_stack(folder)
    return stack is not None and stack.pid == pid


def _wait(seconds: float, done: Callable[[], bool]) -> bool:
    """Wait until `done` returns True. Return False after so many seconds."""
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() > until:
            return False
        time.sleep(WAIT_SECONDS)
    return True


def _option(data: Path | None) -> str:
    return f" --data {shlex.quote(str(data))}" if data else ""


def _print_addresses(dashboard_url: str | None, api_url: str, folder: Path, stop: str) -> None:
    table = Table.grid(padding=(0, 2))
    option = "" if folder == ClientSettings.read().data_dir else _option(folder)
    for label, value in {
        "Dashboard": dashboard_url or "none",
        "API": f"{api_url}/docs",
        "Data": str(folder),
        "Logs": str(folder / "logs"),
        "Submit a job": f"calibrl submit FILE.yaml{option}",
        "Stop": stop,
    }.items():
        table.add_row(label, Text(value, style="bold"))
    print_rich(table)
