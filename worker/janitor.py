"""Removal of leftover files on a worker's machine: a thread, and a command, `python -m worker.janitor [--apply]`.

The command lists leftovers. It removes them only with `--apply`. After a restored backup both are on hold until
`--confirm`.
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

from calibrl.schemas import HOUR
from calibrl.settings import SettingsError
from jobs import data_mark, janitor
from jobs.janitor import Finding
from jobs.service_logs import configure_logs
from jobs.settings import Settings, get_settings

log = structlog.get_logger()


class Janitor(threading.Thread):
    """Thread that removes leftovers every `janitor_hours`; no failure ends it. Separate from the heartbeat's thread,
    because a scan of many folders can take longer than the interval between heartbeats."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="janitor", daemon=True)
        self._settings = settings
        self._stop_asked = threading.Event()

    def stop(self) -> None:
        """Start no further round."""
        self._stop_asked.set()

    def run(self) -> None:
        seconds = 0.0  # the first round marks a new data folder
        while not self._stop_asked.wait(seconds):
            begun, seconds = seconds > 0, self._settings.janitor_hours * HOUR
            try:
                if held := data_mark.check(self._settings):
                    log.warning("janitor on hold", reason=held)
                    continue
                done = janitor.remove(janitor.find(self._settings)) if begun else []
            except Exception as error:  # the next round tries again
                log.warning("janitor failed", error=str(error).partition("\n")[0])
                continue
            for finding in done:
                log.info("removed", kind=finding.kind, job=str(finding.job_id), path=str(finding.path), why=finding.why)


def table(findings: Sequence[Finding]) -> Table:
    """Return a table of the findings with their sizes and the total."""
    drawn = Table("kind", "job", "folder", Column("size", justify="right"), "why", show_footer=True)
    for finding in findings:
        # Text objects: Rich must not read markup in a name.
        cells = (
            finding.kind,
            str(finding.job_id or ""),
            str(finding.path or ""),
            filesize.decimal(finding.bytes),
            finding.why,
        )
        drawn.add_row(*map(Text, cells))
    drawn.columns[0].footer = f"{len(findings)} in all"
    drawn.columns[3].footer = filesize.decimal(sum(finding.bytes for finding in findings))
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m worker.janitor", description="List leftover files of jobs.")
    parser.add_argument("--apply", action="store_true", help="remove the leftovers")
    parser.add_argument(
        "--confirm", action="store_true", help="end the hold after a restored backup: the database is complete"
    )
    options = parser.parse_args(arguments)
    configure_logs()
    console = Console()
    try:
        settings = get_settings()
        if options.confirm:
            data_mark.write(settings)
        held = data_mark.check(settings)
        findings = janitor.find(settings)
    except SettingsError as error:
        sys.exit(str(error))
    if held and options.apply:
        sys.exit(f"On hold: {held}")
    apply = options.apply
    done = janitor.remove(findings) if apply else findings
    console.print(table(done))
    if not apply:
        console.print(f"On hold: {held}" if held else "Nothing was removed. Use --apply to remove the leftovers.")
    elif len(done) < len(findings):
        console.print(f"{len(findings) - len(done)} more could not be removed, or are in use again: see the log.")


if __name__ == "__main__":
    main()
