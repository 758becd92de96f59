"""The command `calibrl metrics`: what the metrics of a run mean, and their last values in a job."""

from typing import Annotated

import typer

from calibrl.client import Client
from calibrl.commands.arguments import JOBS, AsJson, StackFolder, print_json, print_rich
from calibrl.views.metrics import metric_page, metric_table, value_table
from calibrl_core.metrics import FAMILIES, HISTOGRAMS, look_up

app = typer.Typer()
ALL = tuple(metric for family in FAMILIES for metric in family.metrics)


@app.command("metrics", rich_help_panel=JOBS)
def show_metrics(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Metric to explain, or a prefix such as reward/.", show_default=False),
    ] = None,
    job: Annotated[
        str | None,
        typer.Option("--job", metavar="JOB", help="Show the last values of a job instead.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """List the metrics that runs report, or explain one: unit, meaning, how to read it, good direction."""
    if job is not None:
        with Client(data_dir=data) as client:
            values = client.metric_names(client.find_job(job).id)
        values = [one for one in values if name is None or one.name.startswith(name)]
        print_json(values) if as_json else print_rich(value_table(values) if values else "No metrics.")
        return
    listed = [metric for metric in ALL if name is None or (name.endswith("/") and metric.name.startswith(name))]
    if listed:
        print_rich(metric_table(listed))
        return
    description = next((metric for metric in ALL if metric.name == name), None) or look_up(name or "")
    histogram = next((each for each in HISTOGRAMS if each.name == name), None)
    if description is None and histogram is None:
        raise typer.BadParameter(f"there is no metric {name!r}; `calibrl metrics` lists them", param_hint="NAME")
    print_rich(metric_page(name or "", description, histogram))
