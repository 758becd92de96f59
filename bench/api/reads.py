"""Measures of reads: one metric of a long run, and the list of all jobs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from bench import report
from bench.api import trainer
from bench.api.context import Bench
from bench.api.mlflow_server import CREATORS, bodies
from bench.machine import MACHINE, add_jobs
from bench.report import ReportRow
from calibrl_core.report import EventFile
from worker.shipper import BATCH_LINES, Shipper

POINTS = 1000
SHARE = 0.1  # goal: largest share of MLflow's time
PAGE = 100


def curve(bench: Bench) -> list[ReportRow]:
    """Measure the read of one metric of a long run at a given number of points."""
    name = trainer.names(bench.sizes.run_metrics)[0]
    job_id, run_id = _long_run(bench), _long_mlflow_run(bench, name)
    with bench.part("reading one metric", total=3 * bench.sizes.reads) as part:

        def timed(read: Callable[[], bytes]) -> float:
            found = [_seconds(read, part.advance) for _ in range(bench.sizes.reads + 1)]
            return median(found[1:])  # the first one warms up

        ours = timed(lambda: bench.get("/v1/metrics", jobs=job_id, names=name, points=POINTS))
        peers = {
            "get-history-bulk-interval": timed(lambda: bench.mlflow.interval(run_id, name, POINTS)),
            "get-history": timed(lambda: bench.mlflow.history(run_id, name)),
        }
    for path, seconds in peers.items():
        bench.progress.console.print(f"reading one metric, MLflow's {path}: {seconds:.4f} s")
    best = min(peers, key=lambda path: peers[path])
    measure = f"one metric of {bench.sizes.run_steps:,} steps at {POINTS:,} points, p50 (MLflow: {best})"
    return [report.at_most(measure, ours, peers[best], "s", SHARE)]


def _seconds(act: Callable[[], object], advance: Callable[[], None]) -> float:
    begin = time.perf_counter()
    act()
    seconds = time.perf_counter() - begin
    advance()
    return seconds


def _long_run(bench: Bench) -> str:
    """Write and ship a long run of ours; return its job's id."""
    steps, count = bench.sizes.run_steps, bench.sizes.run_metrics
    [claim] = bench.machine.hold(1)
    run_dir = bench.folder / str(claim.job_id)
    file, shipper = EventFile(run_dir), Shipper(claim, run_dir, MACHINE)
    with bench.part("a long run of ours", total=steps) as part:
        for step in range(1, steps + 1):
            file.emit("metrics", step=step, values=trainer.values(step, count))
            if step % BATCH_LINES == 0:
                shipper.ship()
                part.advance(BATCH_LINES)
        while shipper.ship():
            pass
    bench.machine.finish([claim])
    return str(claim.job_id)


def _long_mlflow_run(bench: Bench, name: str) -> str:
    """Fill MLflow with the same run, only the metric that is read; return the run's id."""
    run_id = bench.mlflow.create_run()
    count = bench.sizes.run_metrics
    batches = bodies(run_id, [(s, name, trainer.values(s, count)[name]) for s in range(1, bench.sizes.run_steps + 1)])
    with bench.part("a long run of MLflow's", total=len(batches)) as part, ThreadPoolExecutor(CREATORS) as pool:
        for _ in pool.map(bench.mlflow.log, batches):
            part.advance()
    return run_id


def listing(bench: Bench) -> list[ReportRow]:
    """Measure the read of all jobs in pages, beside MLflow's runs."""
    count = bench.sizes.listed
    add_jobs(count)
    known = sum(_mlflow_pages(bench)[1])
    with bench.part("as many runs of MLflow's", total=count - known) as part:
        for _ in range(known, count, PAGE):
            bench.mlflow.create_runs(PAGE)
            part.advance(PAGE)
    with bench.part("listing"):
        ours, found = _pages(bench)
        peer, peer_found = _mlflow_pages(bench)
    assert min(sum(found), sum(peer_found)) >= count, "a list was shorter than what was put there"
    return [
        report.no_goal(f"listing {count:,} jobs, a page of {PAGE}, p50", median(ours), median(peer), "s"),
        report.no_goal(f"listing {count:,} jobs, all pages", sum(ours), sum(peer), "s"),
    ]


def _pages(bench: Bench) -> tuple[list[float], list[int]]:
    """Yield seconds and number of jobs of each page."""
    seconds, found, after = list[float](), list[int](), None
    while True:
        begin = time.perf_counter()
        body = bench.get("/v1/jobs", limit=PAGE, **({"after": after} if after else {}))
        page = json.loads(body)
        seconds.append(time.perf_counter() - begin)
        found.append(len(page["data"]))
        if not page["has_more"]:
            return seconds, found
        after = page["data"][-1]["id"]


def _mlflow_pages(bench: Bench) -> tuple[list[float], list[int]]:
    seconds, found, token = list[float](), list[int](), None
    while True:
        begin = time.perf_counter()
        count, token = bench.mlflow.page(PAGE, token)
        seconds.append(time.perf_counter() - begin)
        found.append(count)
        if not token:
            return seconds, found
