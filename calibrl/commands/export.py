"""`calibrl export`: metrics of a job as a file, for TensorBoard, or as an MLflow run."""

import re
import time
from pathlib import Path
from typing import Annotated

import typer

from calibrl.client import CalibrlError, Client
from calibrl.client.metrics import ExportFormat
from calibrl.commands.arguments import JOBS, JobArgument, StackFolder

POLL_SECONDS = 2.0
STANDARD_OUTPUT = Path("-")
app = typer.Typer()
export_app = typer.Typer(help="Export the metrics of a job: CSV, Parquet, TensorBoard, MLflow.")
app.add_typer(export_app, name="export", rich_help_panel=JOBS)

File = Annotated[Path, typer.Argument(metavar="FILE", help="File to write; - is standard output.")]


@export_app.command()
def csv(job: JobArgument, file: File, data: StackFolder = None) -> None:
    """Write CSV with one row per step and one column per metric."""
    _export(job, "csv", file, data)


@export_app.command()
def parquet(job: JobArgument, file: File, data: StackFolder = None) -> None:
    """Write Parquet with one row per step and one column per metric."""
    _export(job, "parquet", file, data)


@export_app.command()
def tensorboard(
    job: JobArgument,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Log folder of TensorBoard. The job gets a subfolder.")],
    data: StackFolder = None,
) -> None:
    """Write an event file for `tensorboard --logdir DIR`. A repeated call replaces the file."""
    with Client(data_dir=data) as client:
        summary = client.find_job(job)
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", summary.name)
        own = folder / f"{name}-{str(summary.id)[:8]}"
        try:
            own.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CalibrlError(f"{own} cannot be created: {error.strerror or error}") from error
        began = int(summary.created_at.timestamp())
        typer.echo(str(client.export(summary.id, "tensorboard", own / f"events.out.tfevents.{began}.{summary.id}")))


@export_app.command()
def mlflow(
    job: JobArgument,
    to: Annotated[str, typer.Option("--to", metavar="URI", help="URI of the MLflow tracking server: http://host:5000")],
    experiment: Annotated[str, typer.Option(help="Experiment of the run.")] = "calibrl",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the job ends.")] = False,
    data: StackFolder = None,
) -> None:
    """Mirror the job as a run of MLflow; run it again to add new steps. Needs the extra mlflow."""
    from calibrl.mlflow_mirror import Mirror

    with Client(data_dir=data) as client:
        mirror = Mirror(client, client.find_job(job).id, to, experiment)
        while True:
            run, steps, ended = mirror.update()
            if steps or ended or not follow:
                typer.echo(f"run {run}: {steps} new steps")
            if ended or not follow:
                return
            time.sleep(POLL_SECONDS)


def _export(job: str, format: ExportFormat, file: Path, data: Path | None) -> None:
    with Client(data_dir=data) as client:
        id = client.find_job(job).id
        if file == STANDARD_OUTPUT:
            output = typer.get_binary_stream("stdout")
            for piece in client.exported(id, format):
                output.write(piece)
            return
        client.export(id, format, file)
    typer.echo(str(file))
