"""Commands of files: uploaded datasets, checkpoints and results."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from calibrl.client import Client
from calibrl.client.file_transfer import Progress as OnProgress
from calibrl.commands import completion
from calibrl.commands.arguments import JOBS, AsJson, JobArgument, StackFolder, print_json, print_rich
from calibrl.extras import require
from calibrl.views import data_report, datasets
from calibrl.views.terminal import plain

DATA = "Data"  # section of the help text
app = typer.Typer()
data_app = typer.Typer(help="Your datasets: upload, list, show, rename, delete.", no_args_is_help=True)
app.add_typer(data_app, name="data", rich_help_panel=DATA)

DatasetArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATASET",
        autocompletion=completion.dataset_ids,
        help="Id of a dataset, the beginning of the id, its name, or `latest`.",
    ),
]
Column = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="FIELD=NAME", help="Column of a field: answer=result", show_default=False),
]

RowFormat = Annotated[
    str | None,
    typer.Option("--format", metavar="NAME", help="Row format, such as verl.", show_default="that of the columns"),
]


CheckedFile = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE]", help="A data file, or a folder of shards, unless SPEC has one.", exists=True),
]
JobFile = Annotated[
    Path | None,
    typer.Option(
        metavar="SPEC", help="Training job: its data, rewards, limits and model count without options.", exists=True
    ),
]


@data_app.command()
def upload(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A .jsonl, .json, .csv or .parquet file, or a folder or .zip with one and its images.",
            exists=True,
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Name of the dataset.", show_default="the name of the file")] = None,
    project: Annotated[
        str | None,
        typer.Option(
            metavar="SLUG",
            autocompletion=completion.projects,
            help="Project of the dataset.",
            show_default="default, or your only project",
        ),
    ] = None,
    column: Column = None,
    form: RowFormat = None,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Upload a dataset and print its id, for `data: {dataset: ID}` in a spec. The service checks each row.

    Image files that rows name are uploaded in their rows. Their paths are relative to the folder of the rows.
    """
    columns = _columns(column)
    with Client(data_dir=data) as client, _bar(f"Uploading {file.name}") as progress:
        dataset = client.upload(file, name, project, columns=columns, format=form, progress=progress)
    print_json(dataset) if as_json else typer.echo(str(dataset.id))


@data_app.command()
def check(
    file: CheckedFile = None,
    spec: JobFile = None,
    model: Annotated[
        str | None, typer.Option(metavar="PATH", help="Folder of a model, to count tokens.", show_default=False)
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Validation data, to find rows that are in both.", exists=True),
    ] = None,
    rewards: Annotated[
        str | None,
        typer.Option(metavar="TYPES", help="Rewards of the job, such as math,choice.", show_default="math"),
    ] = None,
    max_prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="Limit of the job for prompts.", show_default="none")
    ] = None,
    max_completion_tokens: Annotated[
        int | None, typer.Option(min=1, help="Limit of the job for completions.", show_default="none")
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the rows that harm no job, as JSONL.", dir_okay=False),
    ] = None,
    column: Column = None,
    form: RowFormat = None,
    as_json: AsJson = False,
) -> None:
    """Report on a data file: what a job reads of it, and which rows harm a job. Needs no service."""
    require("trainer", "calibrl data check")
    from calibrl.commands import data_check

    job = data_check.job_of(spec) if spec else None
    options = data_check.Options(
        file, _columns(column), form, rewards, model, against, max_prompt_tokens, max_completion_tokens
    )
    source = data_check.source_of(options, job)
    report, kept = data_check.check(source, data_check.settings_of(options, job), write)
    print_json(report) if as_json else print_rich(data_report.report_page(report))
    if write and not as_json:
        typer.echo(f"{kept:,} of {report.rows:,} rows are in {write}")


@data_app.command("list")
def list_datasets(
    project: Annotated[
        str | None,
        typer.Option(
            "--project", metavar="SLUG", autocompletion=completion.projects, help="Only datasets of this project."
        ),
    ] = None,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """List the newest 100 datasets."""
    with Client(data_dir=data) as client:
        dataset_rows = client.datasets(project).data
    if as_json:
        print_json(dataset_rows)
    else:
        print_rich(datasets.dataset_table(dataset_rows) if dataset_rows else "No datasets.")


@data_app.command()
def show(id: DatasetArgument, as_json: AsJson = False, data: StackFolder = None) -> None:
    """Show a dataset and its first rows."""
    with Client(data_dir=data) as client:
        dataset = client.find_dataset(id)
        rows = client.preview(dataset.id) if dataset.hub is None else []
    print_json(dataset) if as_json else print_rich(datasets.dataset_page(dataset, rows))


@data_app.command()
def rename(
    id: DatasetArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="New name.")],
    data: StackFolder = None,
) -> None:
    """Rename a dataset. Its id stays."""
    with Client(data_dir=data) as client:
        renamed = client.rename_dataset(client.find_dataset(id).id, name)
    typer.echo(f"{renamed.id} is {plain(renamed.name)}")


@data_app.command()
def delete(id: DatasetArgument, data: StackFolder = None) -> None:
    """Delete a dataset. Refused while a job that has not ended uses it."""
    with Client(data_dir=data) as client:
        client.delete_dataset(client.find_dataset(id).id)


@app.command(rich_help_panel=JOBS)
def checkpoints(job: JobArgument, as_json: AsJson = False, data: StackFolder = None) -> None:
    """List the checkpoints of a job."""
    with Client(data_dir=data) as client:
        rows = client.checkpoints(client.find_job(job).id)
    if as_json:
        print_json(rows)
    else:
        print_rich(datasets.checkpoint_table(rows) if rows else "No checkpoints.")


@app.command(rich_help_panel=JOBS)
def download(
    job: JobArgument,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Target folder. It is created if it does not exist.", file_okay=False)
    ],
    step: Annotated[
        int | None,
        typer.Option(
            min=0, help="Step of the checkpoint.", show_default="the best; the last if none is marked as the best"
        ),
    ] = None,
    model_only: Annotated[
        bool, typer.Option("--model-only", help="Without the state of the optimizer, which only a resume needs.")
    ] = False,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Download a checkpoint, or the results of an evaluation or audit. A repeated call resumes the download."""
    with Client(data_dir=data) as client:
        summary = client.find_job(job)
        with _bar("Downloading") as progress:
            if summary.kind != "train":
                paths = client.download_results(summary.id, folder, progress=progress)
            else:
                chosen = _chosen(client, str(summary.id)) if step is None else step
                paths = client.download_checkpoint(summary.id, chosen, folder, model_only=model_only, progress=progress)
    if as_json:
        print_json([str(path) for path in paths])
    else:
        typer.echo("\n".join(map(str, paths)))


def _chosen(client: Client, job_id: str) -> int:
    """Return the step of the best checkpoint, or of the newest if none is marked as best."""
    checkpoints = client.checkpoints(job_id)
    if not checkpoints:
        raise typer.BadParameter("the job has no checkpoint", param_hint="JOB")
    return max(checkpoints, key=lambda one: (one.best, one.step)).step


def _columns(options: list[str] | None) -> dict[str, str]:
    pairs = [one.partition("=") for one in options or []]
    if not all(field and name for field, _, name in pairs):
        raise typer.BadParameter("write it as answer=result", param_hint="--column")
    return {field: name for field, _, name in pairs}


@contextmanager
def _bar(title: str) -> Iterator[OnProgress]:
    """Show a progress bar on stderr if stderr is a terminal."""
    screen = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=screen, disable=not screen.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
