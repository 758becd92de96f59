"""Tables of compared jobs: what differs in their specs; last and best values with differences to a baseline."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from calibrl.schemas import JobSummary
from dashboard.markup import escape, job_link, table
from dashboard.reads.live import Buckets
from dashboard.views import run_rows
from dashboard.views.spec_diff import flat

MANY = 6  # jobs, from which on a job is a row instead of a column
Values = dict[UUID, dict[str, tuple[float | None, float | None]]]  # last and best, by job and metric


def differences(jobs: Sequence[JobSummary], names: Mapping[UUID, str]) -> str | None:
    """Return a table of the fields in which the specs differ; None if they are equal but for their names."""
    specs = [flat(job.fields) for job in jobs]
    fields = sorted({field for spec in specs for field in spec} - {"name"})
    different = [field for field in fields if len({spec.get(field) for spec in specs}) > 1]
    if not different:
        return None
    if len(jobs) > MANY:
        rows = (
            f'<tr><td style="white-space:nowrap">{job_link(job.id, names[job.id])}</td>'
            + "".join(f'<td data-label="{escape(field)}">{escape(spec.get(field, "–"))}</td>' for field in different)
            + "</tr>"
            for job, spec in zip(jobs, specs, strict=True)
        )
        return f'<div style="overflow-x:auto">{table(("Job", *different), rows)}</div>'
    rows = (
        f"<tr><td><code>{escape(field)}</code></td>"
        + "".join(
            f'<td data-label="{escape(names[job.id])}">{escape(spec.get(field, "–"))}</td>'
            for job, spec in zip(jobs, specs, strict=True)
        )
        + "</tr>"
        for field in different
    )
    return table(("Field", *(names[job.id] for job in jobs)), rows)


def values(jobs: Sequence[JobSummary], curves: Mapping[tuple[UUID, str], Buckets], metrics: Sequence[str]) -> Values:
    """Return the last and the best value of each metric of each job."""
    return {job.id: {name: _last_and_best(name, curves.get((job.id, name))) for name in metrics} for job in jobs}


def _last_and_best(name: str, curve: Buckets | None) -> tuple[float | None, float | None]:
    return (None, None) if curve is None else (run_rows.last(curve), run_rows.best(name, curve))


def value_table(
    jobs: Sequence[JobSummary],
    found: Values,
    metrics: Mapping[str, str],
    names: Mapping[UUID, str],
    baseline: UUID | None,
) -> str:
    """Return a table of last and best values, with the difference to the baseline, if there is one.

    `metrics`: the title of each.
    """
    rows = []
    for job in jobs:
        cells = "".join(
            f'<td data-label="{escape(title)}">{_cell(found, job.id, name, baseline)}</td>'
            for name, title in metrics.items()
        )
        mark = " (baseline)" if job.id == baseline else ""
        rows.append(f'<tr><td style="white-space:nowrap">{job_link(job.id, names[job.id])}{mark}</td>{cells}</tr>')
    return f'<div style="overflow-x:auto">{table(("Job", *metrics.values()), rows)}</div>'


def _cell(found: Values, job: UUID, metric: str, baseline: UUID | None) -> str:
    """The last value above the best one, each with its difference from that of the baseline."""
    base = found[baseline][metric] if baseline not in (None, job) else (None, None)
    last, best = (_with_difference(*pair) for pair in zip(found[job][metric], base, strict=True))
    return f'{last}<div style="font-size:.8rem;opacity:.8">best {best}</div>'


def _with_difference(value: float | None, base: float | None) -> str:
    if value is None:
        return "–"
    text = f"{value:.4g}".replace("-", "−")
    if base is None:
        return text
    share = f", {_signed(100 * (value - base) / abs(base), '.1f')} %" if base else ""
    return f"{text} ({_signed(value - base, '.3g')}{share})"


def _signed(value: float, value_format: str) -> str:
    return format(value + 0.0, f"+{value_format}").replace("-", "−")
