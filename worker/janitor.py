"""The janitor of a worker's machine: a thread beside the keeper, and a command, `python -m worker.janitor [--apply]`.

The command shows what is left over; only with `--apply` does it remove anything.
"""

import argparse
import sys
import threading
from collections.abc import Sequence

import structlog
from rich import filesize
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from calibrl.settings import SettingsError
from jobs import janitor
from jobs.janitor import Finding
from jobs.logs import configure_logs
from jobs.settings import Settings, get_settings

HOUR = 3600.0

log = structlog.get_logger()


class Janitor(threading.Thread):
    """Removes what is left over, every so many hours; it outlives every failure. A thread of its own: looking through
    many folders takes longer than heartbeats can wait."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="janitor", daemon=True)
        self._settings = settings
        self._stop_asked = threading.Event()

    def stop(self) -> None:
        """Begin no further round."""
        self._stop_asked.set()

    def run(self) -> None:
        while not self._stop_asked.wait(self._settings.janitor_hours * HOUR):
            try:
                done = janitor.remove(janitor.find(self._settings))
            except Exception as error:  # the next round tries again
                log.warning("janitor failed", error=str(error).partition("\n")[0])
                continue
            for found in done:
                log.info("removed", kind=found.kind, job=str(found.job_id), path=str(found.path), why=found.why)


def table(findings: Sequence[Finding]) -> Table:
    """What was found, with sizes and their total."""
    drawn = Table("kind", "job", "folder", Column("size", justify="right"), "why", show_footer=True)
    for found in findings:
        # Text: what looks like markup in a name is none.
        cells = (found.kind, str(found.job_id), str(found.path or ""), filesize.decimal(found.bytes), found.why)
        drawn.add_row(*map(Text, cells))
    drawn.columns[0].footer = f"{len(findings)} in all"
    drawn.columns[3].footer = filesize.decimal(sum(found.bytes for found in findings))
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m worker.janitor", description="Show what jobs have left over.")
    parser.add_argument("--apply", action="store_true", help="remove it")
    apply = parser.parse_args(arguments).apply
    configure_logs()
    console = Console()
    try:
        findings = janitor.find(get_settings())
    except SettingsError as error:
        sys.exit(str(error))
    done = janitor.remove(findings) if apply else findings
    console.print(table(done))
    if not apply:
        console.print("Nothing was removed. Remove it with --apply.")
    elif len(done) < len(findings):
        console.print(f"{len(findings) - len(done)} more could not be removed, or are needed again: see the log.")


if __name__ == "__main__":
    main()
