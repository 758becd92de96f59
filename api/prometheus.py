"""Metrics for Prometheus: requests answered by this process, and the state of the service from the database."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.orm import Session

from calibrl.schemas import JobStatus
from jobs.repository import gauges

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"  # label of unknown methods and paths: a client could otherwise create any number of series

disable_created_metrics()  # type: ignore[no-untyped-call] # a series more per label set, which nothing reads
_requests = CollectorRegistry()
_latency = Histogram(
    "calibrl_request_seconds",
    "Time from a request to the end of its answer.",
    ("method", "route", "status"),
    buckets=_SECONDS,
    registry=_requests,
)


def answered(method: str, route: str, status: int, seconds: float) -> None:
    """Count a request of this process."""
    method = method if method in _METHODS else OTHER
    _latency.labels(method, route, str(status)).observe(seconds)


def render(session: Session, streams: int) -> bytes:
    """Return all metrics in Prometheus's text format. `streams`: number of open streams of this process."""
    state = CollectorRegistry()
    state.register(_State(session, streams))
    return generate_latest(_requests) + generate_latest(state)


class _State(Collector):
    def __init__(self, session: Session, streams: int) -> None:
        self._session = session
        self._streams = streams

    def collect(self) -> Iterator[Metric]:
        yield self._jobs()
        yield from self._queue()
        yield from self._gpus()
        yield GaugeMetricFamily("calibrl_stream_clients", "Open live streams of this process.", value=self._streams)
        workers = GaugeMetricFamily("calibrl_workers", "Machines by status.", labels=["status"])
        for status, count in gauges.workers_by_status(self._session).items():
            workers.add_metric([status], count)
        yield workers
        rows = gauges.metric_rows(self._session)
        lost = gauges.lost_steps(self._session)
        yield CounterMetricFamily("calibrl_lost_steps", "Steps that stops without a checkpoint lost.", value=lost)
        yield CounterMetricFamily("calibrl_metric_rows_shipped", "Rows of metrics written, one per step.", value=rows)

    def _jobs(self) -> Metric:
        counts = gauges.jobs_by_status(self._session)
        family = GaugeMetricFamily("calibrl_jobs", "Jobs by status.", labels=["status"])
        for status in JobStatus:
            family.add_metric([status], counts.get(status, 0))
        return family

    def _queue(self) -> Iterator[Metric]:
        depth = GaugeMetricFamily("calibrl_queue_depth", "Queued jobs by project.", labels=["project"])
        oldest = GaugeMetricFamily(
            "calibrl_queue_oldest_seconds", "Waiting time of the first queued job of a project.", labels=["project"]
        )
        for row in gauges.queue_by_project(self._session):
            depth.add_metric([row.project], row.depth)
            oldest.add_metric([row.project], float(row.oldest))
        yield from (depth, oldest)

    def _gpus(self) -> Iterator[Metric]:
        labels = ["worker", "index"]
        held = GaugeMetricFamily("calibrl_gpu_held", "1 if a job holds the GPU, else 0.", labels=labels)
        use = GaugeMetricFamily(
            "calibrl_gpu_utilisation_ratio", "Utilisation (0 to 1) in the last heartbeat.", labels=labels
        )
        memory = GaugeMetricFamily("calibrl_gpu_memory_used_bytes", "Used memory in the last heartbeat.", labels=labels)
        for row in gauges.gpus(self._session):
            where = [row.worker, str(row.index)]
            held.add_metric(where, float(row.held))
            use.add_metric(where, row.utilisation / 100)
            memory.add_metric(where, row.memory_used)
        yield from (held, use, memory)
