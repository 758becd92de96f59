"""How notebooks show a job and its metrics: inert HTML, and charts of matplotlib."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from calibrl.client.errors import CalibrlError
from calibrl.schemas import Job, MetricRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3  # charts side by side
MOST_CHARTS = 60
CHART_INCHES = (4.0, 2.6)  # width, height


def job_html(job: Job) -> str:
    """Return a table with the state of a job. Every text is escaped: names and messages can hold markup of others."""
    reason = f" ({job.reason})" if job.reason else ""
    total = "?" if job.steps_total is None else job.steps_total
    rows = {
        "id": str(job.id),
        "kind": job.kind,
        "status": f"{job.status}{reason}",
        "step": f"{job.step} of {total}",
        "message": job.message,
        "project": job.project,
        "user": job.user,
        "labels": ", ".join(f"{key}={value}" for key, value in job.labels.items()),
        "notes": job.notes,
        "created": f"{job.created_at:%Y-%m-%d %H:%M:%S %Z}",
    }
    lines = [f"<tr><th>{name}</th><td>{escape(str(text))}</td></tr>" for name, text in rows.items() if text]
    return f"<table><caption>{escape(job.name)}</caption>{''.join(lines)}</table>"


def drawn(rows: Sequence[MetricRow]) -> "Figure":
    """Return a figure with one chart per metric over the steps, in the order of the names. Steps without a finite value
    are gaps.

    Raises:
        CalibrlError: matplotlib is not installed, there are no metrics, or there are more than `MOST_CHARTS`.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CalibrlError("matplotlib is not installed: `pip install matplotlib`") from error
    names = sorted({name for row in rows for name in row.values})
    if not names:
        raise CalibrlError("there is nothing to plot: the job has no such metrics yet")
    if len(names) > MOST_CHARTS:
        raise CalibrlError(f"{len(names)} metrics are too many to plot: name at most {MOST_CHARTS}")
    columns = min(COLUMNS, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(columns * CHART_INCHES[0], lines * CHART_INCHES[1]), layout="constrained")
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(lines, columns, place)
        steps = [row.step for row in rows if name in row.values]
        axes.plot(steps, [float(row.values[name]) for row in rows if name in row.values])
        axes.set_title(name, fontsize=9, parse_math=False)
        axes.tick_params(labelsize=8)
    return figure
