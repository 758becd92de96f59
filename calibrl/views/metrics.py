"""Output of `calibrl metrics`: metrics as a table, and one metric as a page."""

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from calibrl.schemas import MetricName
from calibrl.views.terminal import plain, table_of
from calibrl_core.metrics import FAMILIES, Metric, find

GOOD = {"up": "higher is better", "down": "lower is better", "none": "no direction is good in itself"}


def metric_table(metrics: Sequence[Metric]) -> Table:
    """Return metrics as a table: name, unit, good direction and meaning, in the given order."""
    table = table_of("METRIC", "UNIT", "GOOD", "MEANING~")
    for metric in metrics:
        direction = "" if metric.direction == "none" else metric.direction
        table.add_row(Text(metric.name), metric.unit, direction, Text(metric.meaning))
    return table


def value_table(values: Sequence[MetricName]) -> Table:
    """Return the last value of each metric of a job."""
    table = table_of("METRIC", ">LAST", "UNIT")
    for one in values:
        last = "–" if one.last is None else f"{float(one.last):.4g}"
        known = find(one.name, FAMILIES)  # None: of another version, or of a package that is not installed here
        table.add_row(Text(plain(one.name)), last, known.unit if known else "")
    return table


def metric_page(name: str, metric: Metric | None, histogram: Metric | None) -> RenderableType:
    """Return the description of one metric, of the histogram of that name, or of both."""
    facts = Table.grid(padding=(0, 2))
    facts.add_row(Text("name", style="dim"), Text(name, style="bold"))
    values: dict[str, str] = {}
    if metric:
        values = {"unit": metric.unit, "meaning": metric.meaning, "how to read": metric.how_to_read}
        values["good"] = GOOD[metric.direction]
    if metric and metric.interval:
        values["interval"] = "NAME_low and NAME_high: its 95 % interval over prompts."
    if histogram:
        values["histogram"] = f"{histogram.meaning} Unit: {histogram.unit}."
    for fact, value in values.items():
        if value:
            facts.add_row(Text(fact, style="dim"), Text(value))
    return facts
