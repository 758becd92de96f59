"""Rows of the table of runs: jobs with chosen fields of their specs and metrics, filtered and grouped."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from statistics import fmean
from typing import Any, NamedTuple
from uuid import UUID

import pandas as pd

from calibrl.schemas import JobSummary, Series
from calibrl.schemas.field_names import Schema, members
from calibrl_core.metrics import FAMILIES, look_up
from dashboard.markup import duration, elapsed
from dashboard.reads.live import Buckets
from dashboard.views.spec_diff import KINDS as SPECS
from dashboard.views.spec_diff import text_of

OWN = ("Status", "User", "Project")  # columns by which runs can be grouped, beside fields and labels


class Run(NamedTuple):
    """A job with the last and the best value of each chosen metric."""

    job: JobSummary
    last: Mapping[str, float]
    best: Mapping[str, float]


class RunGroup(NamedTuple):
    """The runs with one value of a field or label: their number, and mean, min and max of each metric's last value."""

    value: str
    number: int
    metrics: Mapping[str, tuple[float, float, float]]


@cache
def known_fields() -> list[str]:
    """Return the paths of the fields of all specs that have no parts, without lists of models, data and rewards."""
    found: dict[str, None] = {}
    for spec in SPECS.values():
        root = spec.model_json_schema()
        found |= dict.fromkeys(_leaves(root, root, ""))
    return sorted(found)


def _leaves(node: Schema, root: Schema, path: str) -> Iterator[str]:
    for member in members(node, root):
        if "properties" in member:
            for name, part in member["properties"].items():
                yield from _leaves(part, root, f"{path}.{name}" if path else name)
        elif member.get("type") not in ("array", "object", "null"):
            yield path


@cache
def known_metrics() -> list[str]:
    """Return the names of the metrics of the registry that have no placeholder."""
    return [metric.name for family in FAMILIES for metric in family.metrics if "<" not in metric.name]


def last(curve: Series | Buckets) -> float | None:
    """Return the last finite value of a curve."""
    return next((value for value in reversed(curve.last) if value is not None), None)


def best(name: str, curve: Series | Buckets) -> float | None:
    """Return the best value of a curve: the lowest if the metric should fall, else the highest."""
    metric = look_up(name)
    lowest = metric is not None and metric.direction == "down"
    values = [value for value in (curve.min if lowest else curve.max) if value is not None]
    return (min(values) if lowest else max(values)) if values else None


def runs(jobs: Sequence[JobSummary], curves: Mapping[str, Mapping[UUID, Series]], metrics: Sequence[str]) -> list[Run]:
    """Return the rows of the table. `curves`: by metric and job."""
    rows = []
    for job in jobs:
        mine = {name: curve for name in metrics if (curve := curves[name].get(job.id)) is not None}
        lasts = {name: value for name in mine if (value := last(mine[name])) is not None}
        rows.append(Run(job, lasts, {name: value for name in mine if (value := best(name, mine[name])) is not None}))
    return rows


def grouped(rows: Iterable[Run], by: str, metrics: Sequence[str]) -> list[RunGroup]:
    """Return the runs by their value of a field, a label (`label NAME`) or a column, in the order of the values."""
    parts: dict[str, list[Run]] = {}
    for run in rows:
        parts.setdefault(_value(run.job, by), []).append(run)
    return [
        RunGroup(value, len(mine), {name: spread for name in metrics if (spread := _spread(mine, name))})
        for value, mine in sorted(parts.items())
    ]


def _spread(rows: Sequence[Run], metric: str) -> tuple[float, float, float] | None:
    values = [run.last[metric] for run in rows if metric in run.last]
    return (fmean(values), min(values), max(values)) if values else None


def _value(job: JobSummary, by: str) -> str:
    own = {"Status": job.status.value, "User": job.user, "Project": job.project}
    if by in own:
        return own[by]
    if by.startswith("label "):
        return job.labels.get(by.removeprefix("label "), "–")
    return text_of(job.fields.get(by)) if by in job.fields else "–"


def frame(rows: Sequence[Run], fields: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Return the table of the rows; a value that a run does not have is empty."""
    content: list[dict[str, Any]] = []
    for job, lasts, bests in rows:
        seconds = elapsed(job)
        head = {"Name": f"job?id={job.id}#{job.name}", "ID": str(job.id)[:8], "Status": job.status.value}
        measured = {f"{name}{end}": of.get(name) for name in metrics for end, of in (("", lasts), (" (best)", bests))}
        chosen = {field: _cell(job.fields.get(field)) for field in fields}
        rest = {
            "Step": job.step,
            "Duration": "" if seconds is None else duration(seconds),
            "Alerts": ", ".join(job.alerts),
            "Labels": ", ".join(f"{name}:{value}" for name, value in job.labels.items()),
            "User": job.user,
            "Project": job.project,
            "Submitted": job.created_at,
        }
        content.append(head | measured | chosen | rest)
    return pd.DataFrame(content)


def _cell(value: Any) -> Any:
    """A value of a spec as a cell: numbers stay numbers, so that they sort as such."""
    return value if value is None or isinstance(value, int | float) else text_of(value)


def matching(rows: Sequence[Run], pattern: str) -> list[Run]:
    """Return the rows in whose texts a regular expression is found: name, ID, user, labels and fields.

    Raises:
        re.error: the pattern is invalid.
    """
    wanted = re.compile(pattern, re.IGNORECASE | re.MULTILINE)
    return [run for run in rows if wanted.search(_text(run.job))]


def _text(job: JobSummary) -> str:
    pairs = [f"{name}:{value}" for name, value in (*job.labels.items(), *job.fields.items())]
    return "\n".join((job.name, str(job.id), job.status.value, job.user, job.project, *pairs))
