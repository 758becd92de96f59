"""The context of every measure: its sizes, the services, a machine of the queue, and progress output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.progress import Progress

from bench.api.mlflow_server import MLflow
from bench.machine import HoldingMachine
from calibrl.client import Client
from jobs.settings import get_settings


@dataclass(frozen=True)
class ApiSizes:
    """Sizes of all measures."""

    metrics: int = 60  # metrics per step of a job
    ingest_steps: int = 6000  # total of all concurrent writers
    writers: tuple[int, ...] = (1, 2, 4)  # numbers of trainers with shippers; the best one counts
    mlflow_calls: int = 40  # of 1,000 points each, total of all clients
    mlflow_clients: tuple[int, ...] = (1, 2, 4, 8)  # numbers of clients; the best one counts
    jobs: int = 50
    viewers: int = 20
    fresh_seconds: int = 60
    quiet_events: int = 100
    run_steps: int = 100_000
    run_metrics: int = 20  # metrics of our run; MLflow's run has only the metric that is read
    reads: int = 20
    listed: int = 10_000
    submit_seconds: int = 10
    submit_rate: int = 50
    streams: int = 1000


FULL = ApiSizes()
QUICK = ApiSizes(
    ingest_steps=600,
    writers=(1, 2),
    mlflow_calls=4,
    mlflow_clients=(1, 2),
    jobs=10,
    viewers=4,
    fresh_seconds=4,
    quiet_events=8,
    run_steps=3000,
    reads=3,
    listed=200,
    submit_seconds=2,
    submit_rate=10,
    streams=50,
)


@dataclass
class Bench:
    """Services and output shared by the measures."""

    sizes: ApiSizes
    folder: Path  # for event files
    mlflow: MLflow
    progress: Progress
    client: Client = field(default_factory=Client)
    machine: HoldingMachine = field(default_factory=HoldingMachine)

    def __post_init__(self) -> None:
        settings = get_settings()
        self.url, self.key = settings.api_url, settings.need("api_key")
        headers = {"Authorization": f"Bearer {self.key}"}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def get(self, path: str, **params: Any) -> bytes:
        """Return the unparsed body of an answer of our API."""
        answer = self.http.get(path, params=params)
        answer.raise_for_status()
        return answer.content

    @contextmanager
    def part(self, name: str, total: float | None = None) -> Iterator[ProgressPart]:
        """Show a progress bar for a part of a measure during the block."""
        bar = self.progress.add_task(name, total=total)
        try:
            yield ProgressPart(self.progress, bar)
        finally:
            self.progress.remove_task(bar)


@dataclass(frozen=True)
class ProgressPart:
    """A progress bar."""

    progress: Progress
    bar: Any

    def advance(self, by: float = 1) -> None:
        """Advance the progress bar by `by` steps."""
        self.progress.advance(self.bar, by)
