"""All measures of the API: a process started by `bench.api`, with the services' addresses in its environment."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from bench import report
from bench.api import freshness, ingest, reads, streams, submitting
from bench.api.context import FULL, QUICK, Bench
from bench.api.mlflow_server import MLflow
from bench.report import ReportRow

# Submitting is last: other measures would claim the jobs that it leaves in the queue.
MEASURES: tuple[Callable[[Bench], list[ReportRow]], ...] = (
    ingest.measure,
    reads.curve,
    reads.listing,
    freshness.measure,
    streams.measure,
    submitting.measure,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--mlflow-url", required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    rows: list[ReportRow] = []
    with tempfile.TemporaryDirectory() as folder, Progress(*columns, console=console, transient=True) as progress:
        bench = Bench(QUICK if options.quick else FULL, Path(folder), MLflow(options.mlflow_url), progress)
        whole = progress.add_task("bench-api", total=len(MEASURES))
        for measure in MEASURES:
            rows += measure(bench)
            progress.advance(whole)
    console.print(f"\n{report.table(rows)}", markup=False, highlight=False, soft_wrap=True)
    if options.results:
        console.print(f"\n{report.write('api', rows, options.results)}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
