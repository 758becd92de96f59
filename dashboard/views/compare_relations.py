"""How fields of the specs and metrics of compared jobs relate: a scatter plot and parallel coordinates."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import streamlit as st

from calibrl.schemas import JobSummary
from dashboard.charts import live_chart, relation_figures, study_figures
from dashboard.charts.relation_figures import Point
from dashboard.charts.study_figures import Value
from dashboard.markup import as_markdown
from dashboard.views.compare_tables import Values
from dashboard.views.spec_diff import flat, text_of

NAMING = ("name", "labels", "notes")  # fields that say nothing about a run
MOST_AXES = 8
HINT = "One point per job. Metrics have their last value. A relation in few jobs can be chance."


def draw(jobs: Sequence[JobSummary], found: Values, names: Mapping[UUID, str], colours: Mapping[UUID, str]) -> None:
    """Draw both charts, with the choice of their axes. `found`: metrics of each job, of which the last is shown."""
    by_name = {names[job.id]: colours[job.id] for job in jobs}
    fields = _different(jobs)
    metrics = list(found[jobs[0].id])
    options = [*fields, *metrics]
    with st.expander("Scatter and parallel coordinates", icon=":material/scatter_plot:"):
        left, right = st.columns(2)
        x = left.selectbox("X", options, key="scatter-x", bind="query-params")
        y = right.selectbox("Y", options, len(fields), key="scatter-y", bind="query-params")
        points = _points(jobs, found, names, x, y)
        live_chart.card(f"{y} by {x}", HINT, relation_figures.scatter(points, x, y, by_name), key="scatter")
        if missing := len(jobs) - len(points):
            st.caption(as_markdown(f"{missing} of {len(jobs)} jobs have no value of {x} or {y}"))
        axes = st.multiselect("Axes", options, fields[:MOST_AXES], key="parallel-axes", max_selections=MOST_AXES)
        figure = study_figures.parallel(_lines(jobs, found, names, axes, y), y, by_name)
        live_chart.card(f"Parallel coordinates, with {y} last", HINT, figure, key="parallel", empty="Select an axis")


def _different(jobs: Sequence[JobSummary]) -> list[str]:
    """The fields in which the specs differ, without names; all fields if they do not differ."""
    specs = [flat(job.fields) for job in jobs]
    fields = [
        name for name in dict.fromkeys(field for spec in specs for field in spec) if name.split(".")[0] not in NAMING
    ]
    return [name for name in fields if len({spec.get(name) for spec in specs}) > 1] or fields


def _value(job: JobSummary, found: Values, name: str) -> Value | None:
    """The last value of a metric, or the value of a field: a number, or text."""
    if name in found[job.id]:
        return found[job.id][name][0]
    value: Any = job.fields
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else text_of(value)


def _points(jobs: Sequence[JobSummary], found: Values, names: Mapping[UUID, str], x: str, y: str) -> dict[str, Point]:
    pairs = {names[job.id]: (_value(job, found, x), _value(job, found, y)) for job in jobs}
    return {
        name: (first, second) for name, (first, second) in pairs.items() if first is not None and second is not None
    }


def _lines(
    jobs: Sequence[JobSummary], found: Values, names: Mapping[UUID, str], axes: Sequence[str], last: str
) -> dict[str, dict[str, Value]]:
    """The values of the jobs that have the last axis. A field that a spec does not have is `none`."""
    lines: dict[str, dict[str, Value]] = {}
    for job in jobs:
        if (measure := _value(job, found, last)) is not None:
            values = {name: _value(job, found, name) for name in axes if name != last}
            lines[names[job.id]] = {name: "none" if value is None else value for name, value in values.items()} | {
                last: measure
            }
    return lines
