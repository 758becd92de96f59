"""Output of the commands of studies: data in, renderables and text out."""

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from calibrl.studies.state import Progress
from calibrl.views.terminal import SPARK_WIDTH, duration, plain


def progress_line(name: str, progress: Progress) -> str:
    """Return the progress of a study as one plain line."""
    ended = progress.succeeded + progress.failed
    counts = f"{progress.running} running, {progress.waiting} waiting, {progress.failed} failed"
    used = f"{progress.slot_hours:.2f} slot-hours"
    return f"{name}: {ended}/{progress.planned} jobs ended, {counts}, {used}, {time_left(progress)}"


def time_left(progress: Progress) -> str:
    """Return the time left in words."""
    if progress.done:
        return "done"
    if progress.seconds_left is None:
        return "time left unknown until a job of each kind has ended"
    return f"about {duration(progress.seconds_left)} left"


def progress_view(name: str, progress: Progress) -> RenderableType:
    """Return the progress of a study: a bar, the counts, and notes."""
    head = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=progress.planned or 1, completed=progress.succeeded + progress.failed, width=SPARK_WIDTH)
    head.add_row(Text(name, style="bold"), bar, time_left(progress))
    return Group(head, Text(progress_line(name, progress), style="dim"), notes(progress))


def notes(progress: Progress) -> Text:
    """Return the notes on a study, one per line."""
    return Text("\n".join(plain(note) for note in progress.notes), style="yellow")
