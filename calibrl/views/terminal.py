"""Output of the command line: a job as a line, as a page, or live. Data in, renderables and text out."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml
from rich.console import Group, JustifyMethod, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from calibrl.schemas import (
    ApiKey,
    Checkpoint,
    Event,
    Gpu,
    Job,
    JobStatus,
    JobSummary,
    Member,
    Project,
    QueueEntry,
    Usage,
    User,
    Worker,
    WorkerStatus,
)
from calibrl_core.metrics import describe

BARS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 40  # characters
STYLES = {
    JobStatus.QUEUED: "cyan",
    JobStatus.WAITING: "cyan",
    JobStatus.RUNNING: "yellow",
    JobStatus.PAUSING: "yellow",
    JobStatus.PAUSED: "blue",
    JobStatus.CANCELLING: "yellow",
    JobStatus.SUCCEEDED: "green",
    JobStatus.FAILED: "red",
    JobStatus.CANCELLED: "magenta",
}
MACHINE_STYLES = {
    WorkerStatus.ONLINE: "green",
    WorkerStatus.DRAINING: "yellow",
    WorkerStatus.STOPPING: "yellow",
    WorkerStatus.LOST: "red",
    WorkerStatus.OFFLINE: "magenta",
}
METER_WIDTH = 10  # characters
SOON_SECONDS = 2.0  # a start within this time is shown as `now`
LONG_RESULTS = ("worst", "nll_histogram", "gap_histogram")  # fields of an audit that `calibrl audit` or a page shows
WATCHED = (  # shown while a job runs, in this order, if the job reports them
    "reward/mean",
    "reward/answer_accuracy",
    "validation/accuracy",
    "exploration/entropy",
    "rareness/mean",
    "expert/gap_mean",
    "loss/total",
    "perf/step_seconds",
)


def plain(text: str) -> str:
    """Return text of a log or a model without control characters, except newline and tab."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")  # redraws of a progress bar become lines
    return "".join(char if char in "\n\t" or char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in lines)


def sparkline(values: Sequence[float]) -> str:
    """Return the last `SPARK_WIDTH` values as bars from their minimum to their maximum; `·` if not finite."""
    shown = list(values)[-SPARK_WIDTH:]
    finite = [value for value in shown if math.isfinite(value)]
    low = min(finite, default=0.0)
    span = (max(finite, default=0.0) - low) or 1.0
    top = len(BARS) - 1
    return "".join(BARS[round((value - low) / span * top)] if math.isfinite(value) else "·" for value in shown)


def duration(seconds: float) -> str:
    """Return a duration in words: 42s, 3m05s, 2h10m, 3d04h."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole // 60 % 60:02d}m"
    return f"{whole // 86400}d{whole // 3600 % 24:02d}h"


def run_time(job: JobSummary) -> str:
    """Return the time that a job has run, without pauses; empty before it starts and while it waits."""
    return "" if job.run_seconds is None or not (job.status.held or job.status.final) else duration(job.run_seconds)


def status_text(job: JobSummary) -> Text:
    """Return the status in its colour, with its reason."""
    reason = f" ({job.reason.value})" if job.reason else ""
    return Text(job.status.value + reason, style=STYLES[job.status])


def progress_text(job: JobSummary) -> str:
    """Return completed and planned steps."""
    return f"{job.step}/{job.steps_total if job.steps_total is not None else '?'}"


def headline(job: JobSummary) -> str:
    """Return a job as one plain line, for output that is not a terminal."""
    message = f": {' '.join(plain(job.message).split())}" if job.message else ""
    return f"{job.id} {plain(job.name)}: {status_text(job).plain}, step {progress_text(job)}{message}"


def warning(event: Event) -> Text | None:
    """Return a line for a health event or a warning; None for other events."""
    if event.type not in ("health", "warning"):
        return None
    return Text(f"{event.type}: {' '.join(plain(event.message or '').split())}", style="yellow")


def until(moment: datetime | None) -> str:
    """Return an expected time relative to now, in words: now, in about 3 min."""
    if moment is None:
        return "unknown"
    seconds = (moment - datetime.now(UTC)).total_seconds()
    if seconds < SOON_SECONDS:
        return "now"
    if seconds < 45:
        return "in under a minute"
    for unit, name in ((60, "min"), (3600, "h")):
        if seconds < 50 * unit:
            return f"in about {max(1, round(seconds / unit))} {name}"
    return f"in about {round(seconds / 86400)} days"


def meter(share: float) -> str:
    """Return a bar of METER_WIDTH characters, filled to a share from 0 to 1."""
    full = round(METER_WIDTH * min(max(share, 0.0), 1.0))
    return "█" * full + "░" * (METER_WIDTH - full)


def job_table(jobs: Sequence[JobSummary]) -> Table:
    """Return jobs as a table, in the given order."""
    table = table_of("ID", "NAME~", "KIND", "PROJECT", "STATUS", ">STEP", ">RAN", "SUBMITTED")
    for job in jobs:
        submitted = job.created_at.astimezone().strftime("%Y-%m-%d %H:%M")
        name, short = Text(job.name), str(job.id)[:8]
        row = (short, name, job.kind, job.project, status_text(job), progress_text(job), run_time(job), submitted)
        table.add_row(*row)
    return table


def live_view(job: Job, rows: Mapping[int, Mapping[str, float | str]]) -> RenderableType:
    """Return a running job: status, progress bar, and the latest value, sparkline and unit of each watched
    metric."""
    head = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=job.steps_total or 1, completed=job.step, width=SPARK_WIDTH, pulse=job.steps_total is None)
    head.add_row(Text(job.name, style="bold"), status_text(job), bar, progress_text(job), run_time(job))
    metrics = Table.grid(padding=(0, 2))
    for name in WATCHED:
        values = [float(row[name]) for _, row in sorted(rows.items()) if name in row]
        if values:
            metric = describe(name)
            label, unit = Text(metric.label, style="dim"), Text(metric.unit, style="dim")
            metrics.add_row(label, f"{values[-1]:.4g}", sparkline(values), unit)
    message = [Text(plain(job.message), style="dim")] if job.message else []
    return Group(head, metrics, *message)


def job_page(
    job: Job, waits: QueueEntry | None, events: Sequence[Event], checkpoints: Sequence[Checkpoint]
) -> RenderableType:
    """Return a job without its metrics and its log. `waits`: its queue entry if it is waiting."""
    facts = Table.grid(padding=(0, 2))
    labels = ", ".join(f"{key}={value}" for key, value in job.labels.items())
    values: dict[str, str | Text] = {
        "id": str(job.id),
        "name": job.name,
        "kind": job.kind,
        "project": job.project,
        "priority": job.priority,
        "labels": labels,
        "status": status_text(job),
        "queue": waits_text(waits) if waits else "",
        "message": plain(job.message or ""),
        "step": progress_text(job),
        "attempt": str(job.attempt),
        "machines": plain(", ".join(job.workers)),
        "ran": run_time(job),
        "depends on": "\n".join(str(id) for id in job.depends_on),
        "forked from": _origin(job),
    }
    for fact, value in values.items():
        if value:
            facts.add_row(Text(fact, style="dim"), Text(value) if isinstance(value, str) else value)
    parts = {
        "Events": event_table(events) if events else None,
        "Checkpoints": _checkpoints(checkpoints) if checkpoints else None,
        "Notes": Text(plain(job.notes)) if job.notes else None,
        "Result": _yaml(_short(job.result)) if job.result else None,
        "Spec": _yaml(job.spec),
    }
    titled = ((Text(f"\n{title}", style="bold"), part) for title, part in parts.items() if part)
    return Group(facts, *(item for pair in titled for item in pair))


def _origin(job: Job) -> str:
    if job.forked_from is None:
        return ""
    return str(job.forked_from) + ("" if job.forked_step is None else f", step {job.forked_step}")


def _short(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in LONG_RESULTS}


def waits_text(entry: QueueEntry) -> str:
    """Return the queue position of a job as a sentence."""
    if entry.position is None:
        return plain(entry.explanation)
    return f"position {entry.position}: {plain(entry.explanation)}; starts: {until(entry.estimated_start)}"


def queue_table(entries: Sequence[QueueEntry]) -> Table:
    """Return the jobs that have not started, in the given order."""
    table = table_of(">POS", "ID", "NAME~", "PROJECT", "USER", "PRIORITY", "NEEDS", "STARTS", "WHY~")
    for entry in entries:
        table.add_row(
            str(entry.position or "–"),
            str(entry.job_id)[:8],
            Text(entry.name),
            entry.project,
            Text(plain(entry.user)),
            entry.priority,
            _needs(entry),
            until(entry.estimated_start) if entry.position else "–",
            Text(plain(entry.explanation)),
        )
    return table


def _needs(entry: QueueEntry) -> str:
    size = _count(entry.gpus, "GPU") if entry.gpus else "CPU slot"
    return size if entry.machines == 1 else f"{entry.machines} × {size}"


def worker_table(machines: Sequence[Worker]) -> Table:
    """Return machines, each with a line for its CPU slots and one per GPU."""
    table = table_of("MACHINE~", "STATUS", "SLOTS~", "UTILISATION", "MEMORY", "RUNS~")
    for machine in machines:
        labels = " ".join(f"{key}={value}" for key, value in machine.labels.items())
        name = Text.assemble((plain(machine.name), "bold"), (f" {plain(labels)}" if labels else "", "dim"))
        on_gpus = {gpu.job_id for gpu in machine.gpus}
        on_cpu = ", ".join(str(id)[:8] for id in machine.jobs if id not in on_gpus)
        table.add_row(name, _machine_status(machine), _count(machine.cpu_slots, "CPU slot"), "", "", on_cpu)
        for gpu in machine.gpus:
            table.add_row("", "", *_gpu_cells(gpu))
    return table


def machine_line(machine: Worker) -> str:
    """Return a machine as one plain line."""
    return f"{plain(machine.name)}: {_machine_status(machine).plain}, runs {_count(len(machine.jobs), 'job')}"


def project_table(projects: Sequence[Project]) -> Table:
    """Return projects and their limits."""
    table = table_of("PROJECT", ">WEIGHT", ">GPUS", ">WAITING", ">HOURS PER MONTH", ">HOURS PER USER", ">KEPT DAYS")
    for one in projects:
        limits = (one.max_gpus, one.max_queued, one.budget_slot_hours, one.user_budget_slot_hours, one.retention_days)
        table.add_row(one.slug, f"{one.weight:g}", *("any" if limit is None else f"{limit:,g}" for limit in limits))
    return table


def usage_table(rows: Sequence[Usage]) -> Table:
    """Return the use of this month per project and user."""
    table = table_of("PROJECT", "USER", ">SLOT-HOURS", ">GPU-HOURS", ">PROJECT BUDGET")
    for row in rows:
        budget = "none" if row.budget_slot_hours is None else f"{row.budget_slot_hours:,g}"
        table.add_row(row.project, Text(plain(row.user)), f"{row.slot_hours:,.2f}", f"{row.gpu_hours:,.2f}", budget)
    return table


def _machine_status(machine: Worker) -> Text:
    silent = machine.status in (WorkerStatus.LOST, WorkerStatus.OFFLINE)
    since = (datetime.now(UTC) - machine.heartbeat_at).total_seconds()
    ago = f" (last heartbeat {duration(since)} ago)" if silent else ""
    return Text(machine.status.value + ago, style=MACHINE_STYLES[machine.status])


def _gpu_cells(gpu: Gpu) -> tuple[Text, str, str, str]:
    used = gpu.memory_used / max(gpu.memory_total, 1)
    memory = f"{meter(used)} {gpu.memory_used / 2**30:.1f} of {gpu.memory_total / 2**30:.0f} GiB"
    runs = str(gpu.job_id)[:8] if gpu.job_id else "free" if gpu.clean else "memory not free yet"
    name = Text(f"GPU {gpu.index} {plain(gpu.name)}")
    return name, f"{meter(gpu.utilisation / 100)} {gpu.utilisation:.0f} %", memory, runs


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def table_of(*columns: str) -> Table:
    """Return an empty table. `>NAME`: numbers, right-aligned; `NAME~`: long text that can wrap."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        justify: JustifyMethod = "right" if column[0] == ">" else "left"
        table.add_column(column.strip(">~"), no_wrap=column[-1] != "~", justify=justify)
    return table


def _yaml(content: Mapping[str, Any]) -> Text:
    return Text(plain(yaml.safe_dump(dict(content), sort_keys=True, allow_unicode=True)).rstrip())


def moment(time: datetime) -> str:
    """Return a time to the second, in the local time zone."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def event_table(events: Sequence[Event]) -> Table:
    """Return events with their times."""
    table = Table.grid(padding=(0, 2))
    for event in events:
        parts = [event.type, f"({event.reason.value})" if event.reason else "", plain(event.message or "")]
        table.add_row(
            Text(moment(event.ts), style="dim"), Text(event.actor), Text(" ".join(part for part in parts if part))
        )
    return table


def _checkpoints(checkpoints: Sequence[Checkpoint]) -> Table:
    table = Table.grid(padding=(0, 2))
    for checkpoint in checkpoints:
        table.add_row(f"step {checkpoint.step}", "best" if checkpoint.best else "", Text(checkpoint.path))
    return table


def keys_table(keys: Sequence[ApiKey]) -> Table:
    """Return keys with their state."""
    table = table_of("ID", "NAME~", "BEGINS", "MAY", "LAST USED", "STATE")
    now = datetime.now(UTC)
    for key in keys:
        expired = key.expires_at is not None and key.expires_at <= now
        until_when = f"until {key.expires_at:%Y-%m-%d}" if key.expires_at else "valid"
        state = "revoked" if key.revoked_at else "expired" if expired else until_when
        used = f"{duration((now - key.last_used_at).total_seconds())} ago" if key.last_used_at else "never"
        table.add_row(str(key.id), Text(plain(key.name)), key.prefix, key.scope, used, state)
    return table


def users_table(users: Sequence[User]) -> Table:
    """Return the users of the service."""
    table = table_of("USER", "ADMIN", "STATE")
    for user in users:
        table.add_row(user.name, "yes" if user.admin else "", "active" if user.active else "inactive")
    return table


def members_table(members: Sequence[Member]) -> Table:
    """Return the members of a project."""
    table = table_of("USER", "ROLE")
    for member in members:
        table.add_row(member.user, member.role)
    return table
