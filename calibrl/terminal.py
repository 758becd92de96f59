"""What the command line draws: a job in a line, a page, or live. Data in, renderables and text out."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jobs.schemas import Checkpoint, Event, Job, JobStatus

BARS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 40  # characters
STYLES = {
    JobStatus.QUEUED: "cyan",
    JobStatus.WAITING: "cyan",
    JobStatus.RUNNING: "yellow",
    JobStatus.CANCELLING: "yellow",
    JobStatus.SUCCEEDED: "green",
    JobStatus.FAILED: "red",
    JobStatus.CANCELLED: "magenta",
}
WATCHED = {  # shown while a job runs, in this order, where it reports them
    "reward/mean": "reward",
    "reward/answer_accuracy": "accuracy",
    "validation/accuracy": "validation accuracy",
    "exploration/entropy": "entropy (nats)",
    "rareness/mean": "rareness weight",
    "expert/gap_mean": "expert gap (nats)",
    "loss/total": "loss",
    "perf/step_seconds": "seconds a step",
}


def plain(text: str) -> str:
    """Text from a log or a model without what would steer the terminal: control characters but newline and tab."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")  # a progress bar's redraws, one a line
    return "".join(char if char in "\n\t" or char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in lines)


def sparkline(values: Sequence[float]) -> str:
    """The last `SPARK_WIDTH` values as bars between their own least and greatest; `·` where one is not finite."""
    shown = list(values)[-SPARK_WIDTH:]
    finite = [value for value in shown if math.isfinite(value)]
    low = min(finite, default=0.0)
    span = (max(finite, default=0.0) - low) or 1.0
    top = len(BARS) - 1
    return "".join(BARS[round((value - low) / span * top)] if math.isfinite(value) else "·" for value in shown)


def duration(seconds: float) -> str:
    """Seconds in words: 42s, 3m05s, 2h10m, 3d04h."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole // 60 % 60:02d}m"
    return f"{whole // 86400}d{whole // 3600 % 24:02d}h"


def run_time(job: Job) -> str:
    """How long it has run, or ran; empty before it starts."""
    if job.started_at is None:
        return ""
    return duration(((job.finished_at or datetime.now(UTC)) - job.started_at).total_seconds())


def status_text(job: Job) -> Text:
    """The status in its colour, with its reason."""
    reason = f" ({job.reason.value})" if job.reason else ""
    return Text(job.status.value + reason, style=STYLES[job.status])


def progress_text(job: Job) -> str:
    """Steps done of those planned."""
    return f"{job.step}/{job.steps_total if job.steps_total is not None else '?'}"


def headline(job: Job) -> str:
    """The job in one plain line, for output that is no terminal."""
    message = f": {' '.join(plain(job.message).split())}" if job.message else ""
    return f"{job.id} {plain(job.name)}: {status_text(job).plain}, step {progress_text(job)}{message}"


def warning(event: Event) -> Text | None:
    """A line for an event that whoever watches should know of; None for the others."""
    if event.type not in ("health", "warning"):
        return None
    return Text(f"{event.type}: {' '.join(plain(event.message or '').split())}", style="yellow")


def job_table(jobs: Sequence[Job]) -> Table:
    """Jobs as a table, in the order given."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("ID", "NAME", "KIND", "PROJECT", "STATUS", "STEP", "RAN", "SUBMITTED"):
        table.add_column(column, no_wrap=column != "NAME", justify="right" if column in ("STEP", "RAN") else "left")
    for job in jobs:
        submitted = job.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
        name, short = Text(job.name), str(job.id)[:8]
        row = (short, name, job.kind, job.project, status_text(job), progress_text(job), run_time(job), submitted)
        table.add_row(*row)
    return table


def live_view(job: Job, rows: Mapping[int, Mapping[str, float | str]]) -> RenderableType:
    """A job as it runs: status, progress bar, and each watched metric's latest value with its course."""
    head = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=job.steps_total or 1, completed=job.step, width=SPARK_WIDTH, pulse=job.steps_total is None)
    head.add_row(Text(job.name, style="bold"), status_text(job), bar, progress_text(job), run_time(job))
    metrics = Table.grid(padding=(0, 2))
    for name, label in WATCHED.items():
        values = [float(row[name]) for _, row in sorted(rows.items()) if name in row]
        if values:
            metrics.add_row(Text(label, style="dim"), f"{values[-1]:.4g}", sparkline(values))
    message = [Text(plain(job.message), style="dim")] if job.message else []
    return Group(head, metrics, *message)


def job_page(job: Job, events: Sequence[Event], checkpoints: Sequence[Checkpoint]) -> RenderableType:
    """What is known of a job, but for its metrics and its log."""
    facts = Table.grid(padding=(0, 2))
    labels = ", ".join(f"{key}={value}" for key, value in job.labels.items())
    told: dict[str, str | Text] = {
        "id": str(job.id),
        "name": job.name,
        "kind": job.kind,
        "project": job.project,
        "priority": job.priority,
        "labels": labels,
        "status": status_text(job),
        "message": plain(job.message or ""),
        "step": progress_text(job),
        "attempt": str(job.attempt),
        "ran": run_time(job),
        "depends on": "\n".join(str(id) for id in job.depends_on),
    }
    for fact, value in told.items():
        if value:
            facts.add_row(Text(fact, style="dim"), Text(value) if isinstance(value, str) else value)
    parts = {
        "Events": _event_table(events) if events else None,
        "Checkpoints": _checkpoints(checkpoints) if checkpoints else None,
        "Result": _yaml(job.result) if job.result else None,
        "Spec": _yaml(job.spec),
    }
    titled = ((Text(f"\n{title}", style="bold"), part) for title, part in parts.items() if part)
    return Group(facts, *(item for pair in titled for item in pair))


def _yaml(content: Mapping[str, Any]) -> Text:
    return Text(plain(yaml.safe_dump(dict(content), sort_keys=True, allow_unicode=True)).rstrip())


def _event_table(events: Sequence[Event]) -> Table:
    table = Table.grid(padding=(0, 2))
    for event in events:
        told = [event.type, f"({event.reason.value})" if event.reason else "", plain(event.message or "")]
        when = event.ts.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(Text(when, style="dim"), Text(event.actor), Text(" ".join(part for part in told if part)))
    return table


def _checkpoints(checkpoints: Sequence[Checkpoint]) -> Table:
    table = Table.grid(padding=(0, 2))
    for checkpoint in checkpoints:
        table.add_row(f"step {checkpoint.step}", "best" if checkpoint.best else "", Text(checkpoint.path))
    return table
