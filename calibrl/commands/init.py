"""The command `calibrl init`: a pipeline of own data, written as one file."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from calibrl.commands.arguments import JOBS
from calibrl.presets.chain import FirstAlgorithm, chain

app = typer.Typer()
BUILTIN = ("digits", "geometry")
SPLITS = {"validation": "validation", "test": "test"}  # of a built-in dataset, by the use of the data
HEAD = """\
# Jobs that are submitted together; each waits for the jobs that it names with @.
#   calibrl submit {file}                           all jobs
#   calibrl submit {file} --set 1.steps=40          with a change of the second
# Fields: `calibrl schema`, and the page "Spec of a job" of the docs.
"""


@app.command("init", rich_help_panel=JOBS)
def init(
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DATA", help="Training data: a file, a folder, a dataset, or digits."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="tiny-vlm, a folder, or a name of the hub such as org/name.")
    ] = None,
    validation: Annotated[str | None, typer.Option(metavar="DATA", help="Validation data.")] = None,
    test: Annotated[str | None, typer.Option(metavar="DATA", help="Data of the evaluation.")] = None,
    algorithm: Annotated[FirstAlgorithm, typer.Option(help="calibrl needs experts in the data, grpo does not.")] = (
        "calibrl"
    ),
    name: Annotated[str, typer.Option(help="Beginning of the names of the jobs.")] = "mine",
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="File to write.", dir_okay=False)
    ] = Path("pipeline.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a pipeline of warm-up, training and evaluation for your data. Asks for what is not given."""
    if output.exists() and not force:
        raise typer.BadParameter(f"{output} exists: choose another file, or use --force", param_hint="--output")
    asks = sys.stdin.isatty()
    if data is None:
        data = _asked("Training data (a file, a folder, a dataset, or digits)", None, asks, "--data")
        validation = validation or _asked("Validation data (empty: none)", "", asks, "--validation")
        test = test or _asked("Test data for an evaluation (empty: none)", "", asks, "--test")
    model = model or _asked("Model (tiny-vlm, a folder, or a name of the hub)", "tiny-vlm", asks, "--model")
    if Path(model).expanduser().is_dir():
        model = str(Path(model).expanduser().absolute())
    held_back = (_part(validation, "validation"), _part(test, "test"))
    specs = chain(name, model, _source(data, "train"), *held_back, algorithm=algorithm)
    separate = json.loads(json.dumps(specs))  # no aliases of parts that specs share
    text = yaml.safe_dump(separate, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
    output.write_text(HEAD.format(file=output) + text, encoding="utf-8")
    typer.echo(f"{output}: {', '.join(spec['name'] for spec in specs)}")
    typer.echo(f"Submit: calibrl submit {output}", err=True)


def _asked(question: str, default: str | None, asks: bool, option: str) -> str:
    """Ask for a value in a terminal. Elsewhere return the default.

    Raises:
        typer.BadParameter: there is no terminal and no default.
    """
    if asks:
        answer: str = typer.prompt(question, default=default, show_default=bool(default))
        return answer.strip()
    if default is None:
        raise typer.BadParameter("is not given", param_hint=option)
    return default


def _part(given: str | None, use: str) -> dict[str, Any] | None:
    return _source(given, use) if given else None


def _source(given: str, use: str) -> dict[str, Any]:
    """Return data as in a spec: of a built-in dataset, of a file or folder that exists, else a dataset of the
    service.
    """
    if given in BUILTIN:
        return {"builtin": given, "split": SPLITS.get(use, "train")}
    path = Path(given).expanduser()
    return {"path": str(path.absolute())} if path.exists() else {"dataset": given}
