"""Metrics of the endpoint that Prometheus reads."""

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs.db import session_scope
from jobs.repository import workers
from tests.support import job_steps
from tests.support.api_users import ApiUsers
from tests.support.rest import refused, serving, submitted
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration
Labels = frozenset[tuple[str, str]]


def read(client: httpx.Client) -> dict[tuple[str, Labels], float]:
    answer = client.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def labels(**given: str) -> Labels:
    return frozenset(given.items())


def test_prometheus_metrics_show_the_state_of_the_service(database: str) -> None:
    with serving() as client:
        job_steps.machine("w", gpus=2)
        submitted(client)
        submitted(client, resources={"gpus": 1})
        with session_scope() as session:
            workers.record_heartbeat(session, "w", [job_steps.card(0).model_copy(update={"utilisation": 50.0})], [])
        client.get("/v1/made-up/address")
        client.request("BREW", "/v1/jobs")
        found = read(client)
    assert found["calibrl_jobs", labels(status="queued")] == 2
    assert found["calibrl_jobs", labels(status="running")] == 0
    assert found["calibrl_queue_depth", labels(project="default")] == 2
    assert 0 <= found["calibrl_queue_oldest_seconds", labels(project="default")] < 60
    assert found["calibrl_gpu_utilisation_ratio", labels(worker="w", index="0")] == 0.5
    assert found["calibrl_gpu_held", labels(worker="w", index="0")] == 0
    assert found["calibrl_workers", labels(status="online")] == 1
    assert ("calibrl_metric_rows_shipped_total", labels()) in found
    count = "calibrl_request_seconds_count"
    assert found[count, labels(method="POST", route="/v1/jobs", status="201")] >= 2
    assert found[count, labels(method="GET", route="other", status="404")] >= 1
    assert not [key for key in found if key[0].endswith("_created")]
    assert not [key for key in found if "BREW" in dict(key[1]).values() or "made-up" in str(key)]


def test_open_streams_are_counted(database: str) -> None:
    with serving() as client:
        clients = "calibrl_stream_clients", labels()
        assert read(client)[clients] == 0
        with client.stream("GET", "/v1/stream"), client.stream("GET", "/v1/stream"):
            eventually(lambda: read(client)[clients] == 2)
        eventually(lambda: read(client)[clients] == 0)


@pytest.mark.parametrize(
    "family",
    [
        "calibrl_queue_depth",
        "calibrl_queue_oldest_seconds",
        "calibrl_jobs",
        "calibrl_gpu_utilisation_ratio",
        "calibrl_gpu_memory_used_bytes",
        "calibrl_request_seconds_count",
        "calibrl_lost_steps_total",
        "calibrl_metric_rows_shipped_total",
        "calibrl_stream_clients",
    ],
)
def test_every_promised_family_has_a_number(database: str, family: str) -> None:
    with serving() as client:
        job_steps.machine("w", gpus=1)
        submitted(client)
        assert family in {name for name, _ in read(client)}


def test_only_admins_read_it(database: str) -> None:
    with serving() as client, ApiUsers(client) as users:
        refused(users.get(users.add("ann", {"default": "admin"}), "/metrics"), 403)
        refused(users.get("", "/metrics"), 401)
