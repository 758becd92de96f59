"""Delay from a point written by a trainer, and from an API request, to the clients that follow, while many jobs run."""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Barrier
from multiprocessing.synchronize import Event as Flag
from pathlib import Path
from queue import Queue
from statistics import median
from uuid import UUID

from bench import report
from bench.api import trainer
from bench.api.context import Bench
from bench.machine import MACHINE
from bench.report import ReportRow, percentile
from calibrl.client import Client, Live
from calibrl.schemas import Priority
from calibrl_core.report import EventFile
from jobs import db, lifecycle
from jobs.lifecycle import Claim
from jobs.settings import get_settings
from worker.shipper import Shipper
from worker.supervisor import SHIP_SECONDS

POINT_GOAL, EVENT_GOAL = 1.0, 0.1  # seconds, p95
PROCESSES = 5  # processes whose threads are the shippers; on a worker each shipper has its own process
WAIT_SECONDS = 60.0
EVENT_PAUSE = 0.1  # seconds between two requests, on average
SETTLE_SECONDS = 2.0


def measure(bench: Bench) -> list[ReportRow]:
    sizes = bench.sizes
    claims = bench.machine.hold(sizes.jobs)
    watched = [claim.job_id for claim in claims[: sizes.viewers]]
    try:
        with _Shippers(claims, bench.folder):
            viewers = Viewers(bench, watched)
            trainers = Trainers(bench, claims)
            with bench.part("freshness", total=sizes.fresh_seconds * sizes.jobs) as part:
                trainers.start(part.advance)
                busy = Requests(bench, viewers, watched).until(lambda: not trainers.running)
            time.sleep(SETTLE_SECONDS)
            with bench.part("API events", total=sizes.quiet_events) as part:
                quiet = Requests(bench, viewers, watched).so_many(sizes.quiet_events, part.advance)
    finally:
        bench.machine.finish(claims)
    wanted = sizes.viewers * sizes.fresh_seconds
    if len(viewers.ages) != wanted:
        raise RuntimeError(f"{len(viewers.ages)} steps reached the viewers, not {wanted}")
    load = f"{sizes.jobs} jobs, {sizes.viewers} viewers"
    return [*_rows(f"a point from trainer to subscriber, {load}", viewers.ages, POINT_GOAL), *_event_rows(busy, quiet)]


def _event_rows(busy: Requests, quiet: Requests) -> list[ReportRow]:
    what = "API event to subscriber"
    rows = [*_rows(f"{what}, under that load", busy.to_job, EVENT_GOAL), *_rows(what, quiet.to_job, EVENT_GOAL)]
    under_load, alone = percentile(busy.to_all, 0.95), percentile(quiet.to_all, 0.95)
    measure = "API event to a subscriber of all jobs, p95, under that load; peer: without"
    return [*rows, report.no_goal(measure, under_load, alone, "s")]


def _rows(measure: str, seconds: Sequence[float], goal: float) -> list[ReportRow]:
    return [
        report.within(f"{measure}, p95", percentile(seconds, 0.95), "s", goal),
        report.no_goal(f"{measure}, p50; peer: the greatest", median(seconds), max(seconds), "s"),
    ]


class Trainers:
    """Trainers of all jobs. Each reports once per second, at its own offset: metrics, and a sample with an image."""

    def __init__(self, bench: Bench, claims: Sequence[Claim]) -> None:
        self._sizes = bench.sizes
        self._files = [EventFile(bench.folder / str(claim.job_id)) for claim in claims]
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self, advance: Callable[[], None]) -> None:
        """Start all trainers."""
        self._advance = advance
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        begin = time.perf_counter()
        for turn in range(self._sizes.fresh_seconds * len(self._files)):
            second, job = divmod(turn, len(self._files))
            time.sleep(max(0.0, begin + turn / len(self._files) - time.perf_counter()))
            file, step = self._files[job], second + 1
            trainer.emit_sample(file, step, seed=turn)
            file.emit("metrics", step=step, values=trainer.values(turn, self._sizes.metrics))
            self._advance()


class Viewers:
    """Clients that follow one job each, and one that follows all jobs. `ages`: age of each step at its arrival."""

    def __init__(self, bench: Bench, job_ids: Sequence[UUID]) -> None:
        self.ages: list[float] = []
        self.heard: dict[str, Queue[tuple[UUID, float]]] = {"job": Queue(), "all": Queue()}
        self._address = bench.url, bench.key
        opened = threading.Semaphore(0)
        for id in job_ids:
            threading.Thread(target=self._follow, args=(id, opened), daemon=True).start()
        threading.Thread(target=self._follow_all, daemon=True).start()
        for _ in job_ids:
            assert opened.acquire(timeout=WAIT_SECONDS), "a stream has not begun"

    def _follow(self, job_id: UUID, opened: threading.Semaphore) -> None:
        with Client(*self._address) as client:
            for index, live in enumerate(client.stream(job_id)):
                now = time.time()
                if index == 0:
                    opened.release()
                if live.event == "metrics":
                    self.ages += [now - row.ts.timestamp() for row in live.data.data]
                self._hear("job", live, now)

    def _follow_all(self) -> None:
        with Client(*self._address) as client:
            for live in client.stream_all():
                self._hear("all", live, time.time())

    def _hear(self, stream: str, live: Live, now: float) -> None:
        if live.event == "events" and any(event.type == "priority" for event in live.data.data):
            self.heard[stream].put((live.data.job_id, now))


class Requests:
    """Requests that change one job's priority after the other.

    Measures the delay from before the request was sent until the followers of the job, or of all jobs, see the event.
    """

    def __init__(self, bench: Bench, viewers: Viewers, job_ids: Sequence[UUID]) -> None:
        self.to_job: list[float] = []
        self.to_all: list[float] = []
        self._client, self._viewers, self._job_ids = bench.client, viewers, job_ids

    def until(self, done: Callable[[], bool]) -> Requests:
        """Send requests until `done` returns True."""
        while not done():
            self._ask()
        return self

    def so_many(self, count: int, advance: Callable[[], None]) -> Requests:
        """Send `count` requests."""
        for _ in range(count):
            self._ask()
            advance()
        return self

    def _ask(self) -> None:
        time.sleep(EVENT_PAUSE * random.uniform(0.5, 1.5))  # not synchronous with any other process
        job_id = self._job_ids[len(self.to_job) % len(self._job_ids)]
        other: Priority = "low" if self._client.job(job_id).priority == "high" else "high"
        begin = time.time()
        self._client.prioritise(job_id, other)
        for stream, seconds in (("job", self.to_job), ("all", self.to_all)):
            heard, arrived = self._viewers.heard[stream].get(timeout=WAIT_SECONDS)
            assert heard == job_id
            seconds.append(arrived - begin)


class _Shippers:
    """A shipper per job, as its supervisor runs it; a context manager."""

    def __init__(self, claims: Sequence[Claim], folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        shares = [claims[first::PROCESSES] for first in range(PROCESSES)]
        self._ready, self._stop = context.Barrier(PROCESSES + 1), context.Event()
        self._processes = [
            context.Process(target=_ship_all, args=(share, folder, self._ready, self._stop), daemon=True)
            for share in shares
        ]

    def __enter__(self) -> None:
        for process in self._processes:
            process.start()
        self._ready.wait(WAIT_SECONDS)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for process in self._processes:
            process.join(WAIT_SECONDS)


def _ship_all(claims: Sequence[Claim], folder: Path, ready: Barrier, stop: Flag) -> None:
    ended = threading.Event()
    threads = [threading.Thread(target=_ship, args=(claim, folder, ended)) for claim in claims]
    for thread in threads:
        thread.start()
    ready.wait(WAIT_SECONDS)
    parent = multiprocessing.parent_process()
    while not stop.wait(1.0) and parent is not None and parent.is_alive():
        pass
    ended.set()
    for thread in threads:
        thread.join(WAIT_SECONDS)


def _ship(claim: Claim, folder: Path, ended: threading.Event) -> None:
    shipper, more = Shipper(claim, folder / str(claim.job_id), MACHINE), False
    pause = next_beat = 0.0
    ended.wait(random.uniform(0, SHIP_SECONDS))  # supervisors do not poll at the same time
    while not ended.wait(pause):
        more = shipper.ship()
        pause = 0.0 if more else SHIP_SECONDS
        if time.monotonic() > next_beat:
            next_beat = time.monotonic() + get_settings().heartbeat_seconds
            with db.session_scope() as session:
                lifecycle.heartbeat(session, claim)
