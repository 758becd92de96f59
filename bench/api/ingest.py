"""Points ingested per second, end to end: for us from the trainer's call to the commit, with blocks and feed."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from bench.api import trainer
from bench.api.context import Bench
from bench.api.mlflow_server import Point, bodies
from bench.machine import MACHINE
from bench.report import ReportRow
from calibrl_core.report import EventFile
from jobs import db
from jobs.lifecycle import Claim
from worker.shipper import Shipper

TIMES = 20.0  # goal: ours is that many times faster
WAIT_SECONDS = 300.0


def measure(bench: Bench) -> list[ReportRow]:
    ours = {f"{n} trainers": _ours(bench, n) for n in bench.sizes.writers}
    peer = {f"{n} clients": _mlflow(bench, n) for n in bench.sizes.mlflow_clients}
    (best, rate), (peer_best, peer_rate) = (max(each.items(), key=lambda item: item[1]) for each in (ours, peer))
    for name, found in (*ours.items(), *peer.items()):
        bench.progress.console.print(f"ingest, {name}: {found:,.0f} points/s")
    measure = f"points ingested a second (best: {best}; {peer_best} of log-batch)"
    ratio = rate / peer_rate
    return [ReportRow(measure, rate, peer_rate, ratio, "points/s", f"ours / peer >= {TIMES:g}", ratio >= TIMES)]


def _ours(bench: Bench, writers: int) -> float:
    """Return points per second of `writers` trainers. Each has a shipper in a separate process, as on a worker."""
    steps, count = bench.sizes.ingest_steps // writers, bench.sizes.metrics
    claims = bench.machine.hold(writers)
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(writers), context.Queue()
    started = [
        context.Process(
            target=_report_and_ship, args=(claim, bench.folder, steps, count, barrier, results), daemon=True
        )
        for claim in claims
    ]
    with bench.part(f"ingest: {writers} trainers"):
        for process in started:
            process.start()
        spans = [results.get(timeout=WAIT_SECONDS) for _ in started]
        for process in started:
            process.join(WAIT_SECONDS)
    bench.machine.finish(claims)
    return writers * steps * count / _length(spans)


def _report_and_ship(claim: Claim, folder: Path, steps: int, count: int, barrier: Barrier, results: Any) -> None:
    made = [trainer.values(step, count) for step in range(1, steps + 1)]
    run_dir = folder / str(claim.job_id)
    report, shipper = EventFile(run_dir), Shipper(claim, run_dir, MACHINE)
    with db.session_scope() as session:
        session.connection()  # opened before the clock starts
    barrier.wait(WAIT_SECONDS)
    begin = time.time()
    for step, values in enumerate(made, 1):
        report.emit("metrics", step=step, values=values)
    while shipper.ship():
        pass
    results.put((begin, time.time()))


def _mlflow(bench: Bench, clients: int) -> float:
    """Return points per second of `clients` MLflow clients, one run each; request bodies are made beforehand."""
    calls = max(1, bench.sizes.mlflow_calls // clients)
    work = [bodies(bench.mlflow.create_run(), _points(calls * 1000, bench.sizes.metrics)) for _ in range(clients)]
    barrier, spans = threading.Barrier(clients), list[tuple[float, float]]()

    def send(mine: list[bytes]) -> None:
        barrier.wait(WAIT_SECONDS)
        begin = time.time()
        for body in mine:
            bench.mlflow.log(body)
            part.advance()
        spans.append((begin, time.time()))

    with bench.part(f"ingest: MLflow, {clients} clients", total=calls * clients) as part:
        threads = [threading.Thread(target=send, args=(mine,), daemon=True) for mine in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_SECONDS)
    assert len(spans) == clients, "a client of MLflow has failed"
    return clients * calls * 1000 / _length(spans)


def _points(count: int, metrics: int) -> list[Point]:
    def all_points() -> Iterator[Point]:
        for step in range(1, count // metrics + 2):
            yield from ((step, name, value) for name, value in trainer.values(step, metrics).items())

    return [point for _, point in zip(range(count), all_points(), strict=False)]


def _length(spans: list[tuple[float, float]]) -> float:
    return max(end for _, end in spans) - min(begin for begin, _ in spans)
