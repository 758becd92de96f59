"""Commands of alert rules: list, add, set, remove."""

from typing import Annotated, Any

import typer

from calibrl.client import CalibrlError, Client
from calibrl.commands.arguments import ACCESS, AsJson, StackFolder, print_json, print_rich, read_label
from calibrl.schemas import AlertRule, AlertRuleSettings, NewAlertRule
from calibrl.views import messages

app = typer.Typer()
alerts_app = typer.Typer(
    help="Alert rules of a project: list, add, set, remove. Changes require an admin of the project.",
    no_args_is_help=True,
)
app.add_typer(alerts_app, name="alerts", rich_help_panel=ACCESS)

Project = Annotated[str, typer.Option("--project", metavar="SLUG", help="Project of the rule.")]
RuleName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the rule.", show_default=False)]
Metric = Annotated[str | None, typer.Option(help="Metric that the rule reads, such as exploration/entropy.")]
Below = Annotated[float | None, typer.Option(help="Fire if the metric is below this limit.")]
Above = Annotated[float | None, typer.Option(help="Fire if the metric is above this limit.")]
NotFinite = Annotated[bool, typer.Option("--not-finite", help="Fire if the metric is NaN or infinite.")]
WorseBy = Annotated[
    float | None,
    typer.Option(help="Fire if the metric is worse than its best value by more. Default metric: validation/accuracy."),
]
Lowest = Annotated[bool, typer.Option("--lowest", help="With --worse-by: the lowest value is the best.")]
Steps = Annotated[int | None, typer.Option(help="Values in a row at which the rule fires. Default: 1.")]
NoProgress = Annotated[int | None, typer.Option(metavar="MINUTES", help="Fire if a job completes no step for so long.")]
Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Only jobs with this label. Can be repeated.")
]
JobNames = Annotated[
    str | None, typer.Option("--jobs", metavar="PATTERN", help="Only jobs whose name matches, such as 'sweep-*'.")
]


@alerts_app.command("list")
def list_rules(project: Project = "default", as_json: AsJson = False, data: StackFolder = None) -> None:
    """List the alert rules of a project."""
    with Client(data_dir=data) as client:
        rows = client.alert_rules(project)
    print_json(rows) if as_json else print_rich(messages.alert_rule_table(rows) if rows else "No alert rules.")


@alerts_app.command("add")
def add_rule(
    name: RuleName,
    metric: Metric = None,
    below: Below = None,
    above: Above = None,
    not_finite: NotFinite = False,
    worse_by: WorseBy = None,
    lowest: Lowest = False,
    steps: Steps = None,
    no_progress: NoProgress = None,
    labels: Labels = None,
    jobs: JobNames = None,
    project: Project = "default",
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Add an alert rule with one condition: --below, --above, --not-finite, --worse-by or --no-progress."""
    condition = _condition(metric, below, above, not_finite, worse_by, lowest, steps, no_progress)
    fields = {
        "name": name,
        "project": project,
        "condition": condition,
        "labels": dict(map(read_label, labels or ())),
        "job_names": jobs,
    }
    new = NewAlertRule.model_validate(fields)
    with Client(data_dir=data) as client:
        added = client.add_alert_rule(new)
    print_json(added) if as_json else print_rich(messages.alert_rule_table([added]))


@alerts_app.command("set")
def set_rule(
    name: RuleName,
    metric: Metric = None,
    below: Below = None,
    above: Above = None,
    not_finite: NotFinite = False,
    worse_by: WorseBy = None,
    lowest: Lowest = False,
    steps: Steps = None,
    no_progress: NoProgress = None,
    labels: Labels = None,
    jobs: JobNames = None,
    project: Project = "default",
    as_json: AsJson = False,
    data: StackFolder = None,
) -> None:
    """Replace the condition and the jobs of an alert rule."""
    condition = _condition(metric, below, above, not_finite, worse_by, lowest, steps, no_progress)
    fields = {"condition": condition, "labels": dict(map(read_label, labels or ())), "job_names": jobs}
    settings = AlertRuleSettings.model_validate(fields)
    with Client(data_dir=data) as client:
        changed = client.put_alert_rule(_find(client, project, name).id, settings)
    print_json(changed) if as_json else print_rich(messages.alert_rule_table([changed]))


@alerts_app.command("remove")
def remove_rule(name: RuleName, project: Project = "default", data: StackFolder = None) -> None:
    """Remove an alert rule."""
    with Client(data_dir=data) as client:
        client.remove_alert_rule(_find(client, project, name).id)


def _find(client: Client, project: str, name: str) -> AlertRule:
    found = next((rule for rule in client.alert_rules(project) if rule.name == name), None)
    if found is None:
        raise CalibrlError(
            f"project {project} has no alert rule {name!r}; `calibrl alerts list` shows them", status=404
        )
    return found


def _condition(
    metric: str | None,
    below: float | None,
    above: float | None,
    not_finite: bool,
    worse_by: float | None,
    lowest: bool,
    steps: int | None,
    no_progress: int | None,
) -> dict[str, Any]:
    """Return the condition of the options.

    Raises:
        BadParameter: there is none, or more than one, or an option does not belong to it.
    """
    given: list[dict[str, Any]] = [
        *([{"type": "below", "limit": below}] if below is not None else ()),
        *([{"type": "above", "limit": above}] if above is not None else ()),
        *([{"type": "not_finite"}] if not_finite else ()),
        *([{"type": "worse_than_best", "by": worse_by}] if worse_by is not None else ()),
        *([{"type": "no_progress", "minutes": no_progress}] if no_progress is not None else ()),
    ]
    if len(given) != 1:
        raise typer.BadParameter("give one of --below, --above, --not-finite, --worse-by, --no-progress")
    kind = given[0]["type"]
    if metric is None and kind in ("below", "above", "not_finite"):
        raise typer.BadParameter("--metric is missing: `calibrl metrics --job JOB` lists the metrics of a job")
    options = {"metric": metric, "steps": steps, "best": "lowest" if lowest else None}
    # The schema refuses an option that the condition does not have.
    return given[0] | {name: value for name, value in options.items() if value is not None}
