"""Submission of jobs at a fixed rate: the time of each, from its scheduled start to its answer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from bench import report
from bench.api.context import Bench
from bench.machine import SPEC
from bench.report import ReportRow, percentile

GOAL = 0.025  # seconds, p95
CLIENTS = 16  # enough that no request waits for another
WARM_UP = 10  # requests


def measure(bench: Bench) -> list[ReportRow]:
    body, headers = json.dumps(SPEC).encode(), {"Content-Type": "application/json"}

    def submit() -> None:
        bench.http.post("/v1/jobs", content=body, headers=headers).raise_for_status()

    rate = bench.sizes.submit_rate
    ours = _at_rate(bench, "submitting", submit)
    peer = _at_rate(bench, "MLflow's runs/create", lambda: bench.mlflow.create_run())
    what = f"submitting {rate} a second"
    return [
        report.within(f"{what}, p95", percentile(ours, 0.95), "s", GOAL),
        report.no_goal(f"{what}, p95; MLflow: runs/create", percentile(ours, 0.95), percentile(peer, 0.95), "s"),
        report.no_goal(f"{what}, p50; MLflow: runs/create", median(ours), median(peer), "s"),
    ]


def _at_rate(bench: Bench, name: str, act: Callable[[], object]) -> list[float]:
    """Return the seconds from each scheduled start to the answer; a late request does not delay the schedule."""
    rate, count = bench.sizes.submit_rate, bench.sizes.submit_rate * bench.sizes.submit_seconds
    with bench.part(name, total=count) as part, ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda _: act(), range(WARM_UP)))
        begin = time.perf_counter() + 0.1

        def one(number: int) -> float:
            due = begin + number / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            act()
            part.advance()
            return time.perf_counter() - due

        return list(pool.map(one, range(count)))
