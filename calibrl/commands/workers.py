"""Commands of machines: list, remove, drain, undrain."""

from typing import Annotated

import typer

from calibrl.client import Client
from calibrl.commands.arguments import QUEUE, AsJson, StackFolder, print_json, print_rich
from calibrl.views import terminal

app = typer.Typer()
workers_app = typer.Typer(invoke_without_command=True)
app.add_typer(workers_app, name="workers", rich_help_panel=QUEUE)

MachineArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of a machine, as in `calibrl workers`.")]


@workers_app.callback()
def list_workers(context: typer.Context, as_json: AsJson = False, data: StackFolder = None) -> None:
    """List the machines with their slots, GPU utilisation and running jobs. `workers remove` removes one."""
    if context.invoked_subcommand is not None:
        if as_json or data:
            raise typer.BadParameter(f"put options after `{context.invoked_subcommand}`")
        return
    with Client(data_dir=data) as client:
        machines = client.workers()
    if as_json:
        print_json(machines)
    else:
        print_rich(terminal.worker_table(machines) if machines else "No machines yet.")


@workers_app.command("remove")
def remove_worker(name: MachineArgument, data: StackFolder = None) -> None:
    """Remove a machine that is lost or offline. Its worker adds it again at a start. Requires an admin."""
    with Client(data_dir=data) as client:
        client.remove_worker(name)
    typer.echo(f"removed {name}")


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
