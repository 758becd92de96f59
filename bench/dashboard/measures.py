"""All measures of the dashboard: a process started by `bench.dashboard`, with the services' addresses in its
environment."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from bench import report
from bench.dashboard import pages, servers
from bench.dashboard.run import METRICS, LongRun
from bench.dashboard.viewers import Crowd
from bench.machine import add_jobs
from bench.report import ReportRow, percentile
from calibrl.client import Client
from jobs.settings import get_settings

FIRST_CHART, TICK, MEMORY = (
    1.5,
    0.3,
    1.05,
)  # goals: multiple of an empty page's time, seconds, multiple of the initial memory
VIEWERS = 19
LISTED_ROW = "table a[href*='job?id=']"
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class DashboardSizes:
    """Sizes of all measures."""

    steps: int = 100_000
    jobs: int = 10_000
    openings: int = 5
    minutes: float = 30.0
    sample_seconds: float = 10.0  # between two measurements of memory


FULL = DashboardSizes()
QUICK = DashboardSizes(steps=2000, jobs=200, openings=1, minutes=0.3, sample_seconds=1.0)


class Measures:
    """A run of all measures."""

    def __init__(
        self, sizes: DashboardSizes, dashboard_url: str, tensorboard: Path, progress: Progress, folder: Path
    ) -> None:
        self._sizes, self._environment = sizes, tensorboard
        self._dashboard = dashboard_url.partition("/signin")[0]
        self._key = get_settings().need("api_key")
        self._progress, self._folder = progress, folder
        self._client = Client()

    def rows(self) -> list[ReportRow]:
        """Return all measures in the order in which they are taken."""
        run = LongRun(self._folder / "runs")
        bar = self._progress.add_task(f"{self._sizes.steps:,} steps of {METRICS} metrics", total=self._sizes.steps)
        run.fill(self._sizes.steps, lambda by: self._progress.advance(bar, by))
        add_jobs(self._sizes.jobs)
        logs = self._folder / "events"
        logs.mkdir()
        self._client.export(run.job_id, "tensorboard", logs / "events.out.tfevents.1.bench")
        page = f"id={run.job_id}"
        with ExitStack() as open_:
            empty = open_.enter_context(servers.empty_page(self._folder / "empty"))
            peer = open_.enter_context(servers.tensorboard(self._environment, logs, self._folder / "tensorboard"))
            open_.enter_context(run)
            crowd = open_.enter_context(Crowd(VIEWERS, self._dashboard, "job", page, self._key))
            browser = open_.enter_context(pages.chromium())
            rows = self._pages(browser, empty, peer, f"{self._dashboard}/job?{page}")
            one_more = pages.signed_in(browser, self._dashboard, self._key).new_page()
            one_more.goto(f"{self._dashboard}/job?{page}")  # stays, with the others
            return [*rows, *self._watching(crowd)]

    def _pages(self, browser: Browser, empty: str, peer: str, job: str) -> list[ReportRow]:
        shown = {
            "job": (job, pages.PLOTLY),
            "empty": (empty, pages.PLOTLY),
            "tensorboard": (f"{peer}/#timeseries", pages.TENSORBOARD),
            "list": (self._dashboard, LISTED_ROW),
        }
        bar = self._progress.add_task("opening pages", total=len(shown) * (self._sizes.openings + 1))
        seconds = pages.in_turn(
            lambda: pages.signed_in(browser, self._dashboard, self._key),
            shown,
            self._sizes.openings,
            lambda: self._progress.advance(bar),
        )
        what = f"first chart of {self._sizes.steps:,} steps x {METRICS} metrics, {VIEWERS} more viewers"
        return [
            report.at_most(f"{what}; peer: an empty page", seconds["job"], seconds["empty"], "s", FIRST_CHART),
            report.no_goal(f"{what}; peer: TensorBoard", seconds["job"], seconds["tensorboard"], "s"),
            report.no_goal(
                f"list of {self._sizes.jobs:,} jobs; peer: an empty page", seconds["list"], seconds["empty"], "s"
            ),
        ]

    def _watching(self, crowd: Crowd) -> list[ReportRow]:
        """Measure the server's time per tick and its memory for minutes."""
        pid = _pid_of(self._dashboard)
        begin, cpu = time.monotonic(), _cpu_seconds(pid)
        wanted = max(10, round(self._sizes.minutes * 60 / self._sizes.sample_seconds))
        bar = self._progress.add_task("watching", total=wanted)
        memory = []
        for number in range(1, wanted + 1):
            time.sleep(max(0.0, begin + number * self._sizes.sample_seconds - time.monotonic()))
            memory.append(_memory(pid))
            self._progress.advance(bar)
        ticks, cpu = crowd.ticks_since(begin), _cpu_seconds(pid) - cpu
        return [*_tick_rows(ticks, cpu), *_memory_rows(memory, self._sizes.minutes)]


def _tick_rows(ticks: Sequence[float], cpu: float) -> list[ReportRow]:
    who = f"{VIEWERS + 1} viewers"
    return [
        report.within(f"a live tick from asked to shown, {who}, p95", percentile(ticks, 0.95), "s", TICK),
        report.no_goal(
            f"the same, p50; peer: the processor's time a tick ({len(ticks):,} ticks)",
            median(ticks),
            cpu / len(ticks),
            "s",
        ),
    ]


def _memory_rows(memory: Sequence[int], minutes: float) -> list[ReportRow]:
    """Compare memory in the second and in the last fifth of the time: in the first, caches fill."""
    fifth = len(memory) // 5
    first, last = median(memory[fifth : 2 * fifth]) / 2**20, median(memory[-fifth:]) / 2**20
    return [
        report.at_most(f"the dashboard's memory over {minutes:g} minutes; peer: at first", last, first, "MiB", MEMORY)
    ]


def _pid_of(dashboard_url: str) -> int:
    port = dashboard_url.rpartition(":")[2].encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = path.read_bytes().split(b"\0")
        if b"streamlit" in words and port in words:
            return int(path.parent.name)
    raise RuntimeError("the dashboard's process was not found")


def _memory(pid: int) -> int:
    """Return the resident memory in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--dashboard-url", required=True)
    parser.add_argument("--tensorboard", type=Path, required=True)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with tempfile.TemporaryDirectory() as folder, Progress(*columns, console=console, transient=True) as progress:
        sizes = QUICK if options.quick else FULL
        rows = Measures(sizes, options.dashboard_url, options.tensorboard, progress, Path(folder)).rows()
    console.print(f"\n{report.table(rows)}", markup=False, highlight=False, soft_wrap=True)
    if options.results:
        console.print(f"\n{report.write('dashboard', rows, options.results)}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
