"""Output of the commands of studies: data in, renderables and text out."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from calibrl.schemas import Study, StudySummary
from calibrl.views.terminal import SPARK_WIDTH, duration, plain


def progress_line(study: StudySummary) -> str:
    """Return the progress of a study as one plain line."""
    progress = study.progress
    ended = progress.succeeded + progress.failed
    counts = f"{progress.running} running, {progress.waiting} waiting, {progress.failed} failed"
    used = f"{progress.slot_hours:.2f} slot-hours"
    return f"{study.name}: {ended}/{progress.planned} jobs ended, {counts}, {used}, {time_left(study)}"


def time_left(study: StudySummary) -> str:
    """Return the time left in words, or the status of a study that has ended."""
    if study.status != "running":
        return study.status
    if study.progress.seconds_left is None:
        return "time left unknown until a job of each kind has ended"
    return f"about {duration(study.progress.seconds_left)} left"


def progress_view(study: Study) -> RenderableType:
    """Return the progress of a study: a bar, the counts, and notes."""
    progress = study.progress
    head = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=progress.planned or 1, completed=progress.succeeded + progress.failed, width=SPARK_WIDTH)
    head.add_row(Text(study.name, style="bold"), bar, time_left(study))
    notes = Text("\n".join(note_lines(study)), style="yellow")
    return Group(head, Text(progress_line(study), style="dim"), notes)


def note_lines(study: StudySummary) -> list[str]:
    """Return why a study ended, and the notes on it."""
    return [plain(text) for text in ([study.message] if study.message else []) + study.progress.notes]


def study_table(studies: Sequence[StudySummary]) -> RenderableType:
    """Return a table of studies."""
    if not studies:
        return "No studies yet. `calibrl study run FILE` runs one."
    table = Table("study", "project", "user", "status", "jobs", "failed", "slot-hours", "time left", box=None)
    for study in studies:
        progress = study.progress
        ended = f"{progress.succeeded + progress.failed}/{progress.planned}"
        left = time_left(study) if study.status == "running" else ""
        numbers = (ended, f"{progress.failed}", f"{progress.slot_hours:.2f}", left)
        table.add_row(*(Text(plain(text)) for text in (study.name, study.project, study.user, study.status, *numbers)))
    return table
