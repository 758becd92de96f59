"""Commands of machines: list, drain, undrain."""

from typing import Annotated

import typer

from calibrl.client import Client
from calibrl.commands.arguments import QUEUE, AsJson, StackFolder, print_json, print_rich
from calibrl.views import terminal

app = typer.Typer()

MachineArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of a machine, as in `calibrl workers`.")]


@app.command("workers", rich_help_panel=QUEUE)
def list_workers(as_json: AsJson = False, data: StackFolder = None) -> None:
    """List the machines with their slots, GPU utilisation and running jobs."""
    with Client(data_dir=data) as client:
        machines = client.workers()
    if as_json:
        print_json(machines)
    else:
        print_rich(terminal.worker_table(machines) if machines else "No machines yet.")


@app.command(rich_help_panel=QUEUE)
def drain(
    name: MachineArgument,
    now: Annotated[
        bool, typer.Option("--now", help="Also requeue its running jobs, which continue from a checkpoint.")
    ] = False,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Let a machine finish its running jobs and start no new ones."""
    with Client(data_dir=data) as client:
        machine = client.drain(name, now=now)
    print_json(machine) if as_json else typer.echo(terminal.machine_line(machine))


@app.command(rich_help_panel=QUEUE)
def undrain(name: MachineArgument, as_json: AsJson = False, data: StackFolder = None) -> None:
    """Let a drained machine start jobs again."""
    with Client(data_dir=data) as client:
        machine = client.undrain(name)
    print_json(machine) if as_json else typer.echo(terminal.machine_line(machine))
