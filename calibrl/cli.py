"""The command line `calibrl`. An error is one line on stderr, or one line per invalid field. Exit code 2: invalid
input, 1: a failure.
"""

import signal
import sys
import traceback
from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from calibrl import presets
from calibrl.client import CalibrlError, Client
from calibrl.commands import (
    access,
    alerts,
    bisect,
    completion,
    datasets,
    evaluations,
    export,
    follow_job,
    hours,
    init,
    jobs,
    local_stack,
    metrics,
    profiles,
    projects,
    prompts,
    queue,
    reproduce,
    studies,
    verdicts,
    webhooks,
    what_if,
    workers,
)
from calibrl.commands.arguments import (
    HERE,
    JOBS,
    AsJson,
    JobArgument,
    StackFolder,
    print_json,
    print_rich,
)
from calibrl.commands.local_stack import DashboardPort, DataFolder, Port, data_dir, end_like_ctrl_c
from calibrl.extras import MissingExtraError, require
from calibrl.schemas import JobStatus
from calibrl.schemas.fault_texts import fault_text
from calibrl.schemas.spec_schema import job_spec_schema
from calibrl.settings import SettingsError
from calibrl.specfile import SpecError
from calibrl.views import terminal
from calibrl.views.spec_fields import field_page

POLL_SECONDS = 1.0
BAD_INPUT = frozenset({400, 404, 413, 422})  # HTTP statuses of an invalid request


class _CommandLine(TyperGroup):
    """Turns each exception of a command into a message on stderr and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> NoReturn:
        arguments = _profile_first(list(sys.argv[1:] if args is None else args)) or ["--help"]
        try:
            code = super().main(arguments, prog_name, complete_var, False, windows_expand_args, **extra)
        except typer.TyperException as error:
            if type(error).__name__ == "NoArgsIsHelpError":  # of a private module; the help is printed by now
                sys.exit(0)
            command = getattr(getattr(error, "ctx", None), "command_path", "calibrl")
            code = _complain(2, f"{error.format_message()} (see `{command} --help`)")
        except (MissingExtraError, SettingsError, SpecError) as error:
            code = _complain(2, str(error))
        except CalibrlError as error:
            code = _complain(2 if error.status in BAD_INPUT else 1, *error.lines)
        except ValidationError as error:
            faults = tuple(
                {"field": ".".join(map(str, one["loc"])), "message": fault_text(one)} for one in error.errors()
            )
            code = _complain(2, *CalibrlError("Invalid request", errors=faults).lines)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            message = f"{type(error).__name__}: {error} (at {frame.filename}:{frame.lineno})"
            code = _complain(1, f"internal error, {message}")
        sys.exit(code)


def _profile_first(arguments: list[str]) -> list[str]:
    """Return the arguments with `--profile NAME`, which is an option of `calibrl` itself, before the command."""
    for place, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument.startswith("--profile="):
            return [argument, *arguments[:place], *arguments[place + 1 :]]
        if argument == "--profile":
            return [*arguments[place : place + 2], *arguments[:place], *arguments[place + 2 :]]
    return arguments


def _complain(code: int, *lines: str) -> int:
    first, *rest = (" ".join(terminal.plain(line).split()) for line in lines)
    typer.echo("\n  ".join([f"calibrl: {first}", *rest]), err=True)
    return code


app = typer.Typer(
    cls=_CommandLine,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train vision-language models with CalibRL: submit and watch jobs, or run the service here.",
    epilog="JOB is an id, the beginning of one, a name, or `latest`. Select the service with --profile or "
    "CALIBRL_PROFILE, or with CALIBRL_API_URL and CALIBRL_API_KEY. Default: the local stack, `calibrl up`, on this "
    "machine.",
)
app.add_typer(local_stack.app)


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

    end_like_ctrl_c(signal.SIGTERM, signal.SIGHUP)
    code = run(
        data_dir(data),
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
        str | None,
        typer.Argument(
            metavar="NAME", help="Preset to print as YAML.", show_default=False, autocompletion=completion.preset_names
        ),
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
def show_schema(
    path: Annotated[
        str | None,
        typer.Argument(metavar="PATH", help="Field of a training spec, such as model.lora.", show_default=False),
    ] = None,
) -> None:
    """Print the JSON Schema of a job spec, with which editors complete YAML: `calibrl schema > job-spec.json`. With
    PATH: the field and its fields as tables.
    """
    if path is None:
        print_json(job_spec_schema())
        return
    try:
        print_rich(field_page(path))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="PATH") from None


@app.command(rich_help_panel=JOBS)
def show(job: JobArgument, as_json: AsJson = False, data: StackFolder = None) -> None:
    """Show a job: status, events, checkpoints, result and spec."""
    with Client(data_dir=data) as client:
        shown = client.job(job)
        events, checkpoints = follow_job.history(client, shown.id), client.checkpoints(shown.id)
        if as_json:
            print_json({**shown.model_dump(mode="json"), "events": events, "checkpoints": checkpoints})
        else:
            waits = None
            if not (shown.status.held or shown.status.final):
                waits = next((entry for entry in client.queue(shown.project) if entry.job_id == shown.id), None)
            print_rich(terminal.job_page(shown, waits, events, checkpoints))


@app.command(rich_help_panel=JOBS)
def watch(job: JobArgument, data: StackFolder = None) -> None:
    """Show the progress and metrics of a job until it ends. Exit code 0 if it succeeded, else 1."""
    with Client(data_dir=data) as client:
        ended = follow_job.watch(client, client.find_job(job).id)
    raise typer.Exit(0 if ended.status is JobStatus.SUCCEEDED else 1)


@app.command(rich_help_panel=JOBS)
def logs(
    job: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue until the job ends.")] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", min=0, help="Begin with the last N lines.", show_default="all lines")
    ] = None,
    data: StackFolder = None,
) -> None:
    """Print the log of a job."""
    with Client(data_dir=data) as client:
        log = follow_job.LogReader(client, client.find_job(job).id)
        ends = () if tail is None else log.last_lines(tail)
        rest = log.follow() if follow else log.rest()  # after `last_lines`, only what is new
        for text in chain(ends, rest):
            typer.echo(terminal.plain(text), nl=False)


@app.command(rich_help_panel=JOBS)
def events(job: JobArgument, as_json: AsJson = False, data: StackFolder = None) -> None:
    """List the events of a job, such as starts, alerts and checkpoints."""
    with Client(data_dir=data) as client:
        happened = follow_job.history(client, client.find_job(job).id)
    print_json(happened) if as_json else print_rich(terminal.event_table(happened))


app.add_typer(evaluations.app)
app.add_typer(what_if.app)
app.add_typer(bisect.app)
app.add_typer(datasets.app)
app.add_typer(init.app)
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
app.add_typer(webhooks.app)
app.add_typer(alerts.app)
access.install(app)
profiles.install(app)


def main() -> None:
    """Run the command `calibrl`."""
    app()


if __name__ == "__main__":
    main()
