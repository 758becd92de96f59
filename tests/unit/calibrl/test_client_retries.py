"""Requests that the client sends again, waits for or gives up, over real HTTP."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import httpx
import pytest

from api.idempotency import REPLAYED, SHOWN_ONCE
from calibrl.client import CalibrlError, Client, connection
from calibrl.schemas import JobStatus, NewWebhook
from tests.support.waiting import LIMIT_SECONDS, eventually

from .conftest import JOB_ID, JOB_PATH, SPEC, Service, calibrl, fault, job, problem


def test_a_read_is_repeated_after_an_error_of_a_proxy(service: Service) -> None:
    service.on("GET", JOB_PATH, (503, b""), (504, b""), job())
    with Client() as client:
        assert client.job(JOB_ID).id == JOB_ID
    assert len(service.requests) == 3


def test_a_read_stops_after_repeated_failures(service: Service) -> None:
    service.on("GET", JOB_PATH, (503, b""))
    with Client() as client, pytest.raises(CalibrlError, match="answered 503"):
        client.job(JOB_ID)
    assert len(service.requests) == 3


def test_a_post_is_sent_again_under_its_key(service: Service) -> None:
    in_flight = problem(409, "In flight", type="urn:calibrl:in-flight")
    service.on("POST", "/v1/jobs", (503, b""), (502, b""), in_flight, (201, job()), (503, b""))
    service.on("POST", f"{JOB_PATH}/cancel", (503, b""), job(status="cancelled"))
    with Client() as client:
        assert client.submit(SPEC).id == JOB_ID
        assert client.cancel(JOB_ID).status is JobStatus.CANCELLED
        with pytest.raises(CalibrlError, match="answered 503"):
            client.submit(SPEC)
    keys = [request.headers["Idempotency-Key"] for request in service.requests]
    assert [keys.count(key) for key in dict.fromkeys(keys)] == [4, 2, connection.POSTS]


def test_a_request_without_a_timely_answer_is_sent_again(service: Service) -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        if len(sent) % 2:
            raise httpx.ReadTimeout("", request=request)
        return httpx.Response(200, json=job(status="cancelled"))

    with Client() as client:
        client._http = httpx.Client(base_url=service.url, transport=httpx.MockTransport(answer))
        assert client.job(JOB_ID).id == JOB_ID
        assert client.cancel(JOB_ID).status is JobStatus.CANCELLED
    assert [one.method for one in sent] == ["GET", "GET", "POST", "POST"]
    first, again = [one.headers["Idempotency-Key"] for one in sent[2:]]
    assert first == again


def test_a_connection_that_is_not_made_in_time_is_tried_again(service: Service) -> None:
    tried: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        tried.append(request.method)
        if len(tried) < 3:
            raise httpx.ConnectTimeout("", request=request)
        return httpx.Response(200, json=job())

    with Client() as client:
        client._http = httpx.Client(base_url=service.url, transport=httpx.MockTransport(answer))
        assert client.job(JOB_ID).id == JOB_ID
        tried[:] = []
        assert client.cancel(JOB_ID).id == JOB_ID


def test_no_attempt_begins_after_minutes_without_an_answer(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, "k", timeout=0.2) as client, pytest.raises(CalibrlError, match="in time"):
            client.cancel(JOB_ID)
        silent.setblocking(False)
        attempts = 0
        with pytest.raises(BlockingIOError):  # no further connection waits
            while True:
                silent.accept()[0].close()
                attempts += 1
    assert 1 <= attempts < connection.POSTS


def test_too_many_requests_are_waited_for_as_the_service_says(service: Service) -> None:
    busy = problem(429, "Too Many Requests")
    service.on("GET", JOB_PATH, (*busy, {"Retry-After": "1"}), job())
    service.on("POST", f"{JOB_PATH}/cancel", (*busy, {"Retry-After": "1"}), job())
    service.on("GET", "/v1/me", (*busy, {"Retry-After": "11"}))
    service.on("GET", "/v1/users", busy)
    with Client() as client:
        began = time.monotonic()
        assert client.job(JOB_ID).id == client.cancel(JOB_ID).id
        assert time.monotonic() - began >= 2
        for ask in (client.me, client.users):  # that is longer than one waits; and it doesn't say how long
            with pytest.raises(CalibrlError, match="Too Many"):
                ask()
    assert len(service.requests) == 6


def test_a_secret_in_a_lost_answer_is_an_error(service: Service) -> None:
    key = {
        "id": str(JOB_ID),
        "user": "ada",
        "name": "laptop",
        "scope": "write",
        "prefix": "calibrl_abcdef",
        "created_at": "2026-01-01T00:00:00Z",
        "expires_at": None,
        "last_used_at": None,
        "revoked_at": None,
        "key": SHOWN_ONCE,
    }
    hook = {
        "id": str(JOB_ID),
        "project": "vision",
        "created_by": "ada",
        "url": "https://example.com",
        "events": ["job.failed"],
        "created_at": "2026-01-01T00:00:00Z",
        "secret": SHOWN_ONCE,
    }
    replayed = {REPLAYED: "true"}
    service.on("POST", "/v1/keys", None, (201, key, replayed))
    service.on(
        "POST", "/v1/users", (201, {"name": "ada", "admin": False, "active": True, "created_at": key["created_at"]})
    )
    service.on("POST", "/v1/projects/vision/webhooks", None, (201, hook, replayed))
    service.on("POST", "/v1/jobs", None, (201, job(), replayed))
    lost = f"the key was created, but the answer that contains it was lost: revoke {JOB_ID} and create another"
    assert lost in fault(calibrl("keys", "create", "laptop"), 1)
    assert lost in fault(calibrl("users", "add", "ada"), 1)
    with Client() as client:
        with pytest.raises(CalibrlError, match=f"remove webhook {JOB_ID} and create another"):
            client.add_webhook("vision", NewWebhook(url="https://example.com"))
        assert client.submit(SPEC).id == JOB_ID  # which has no secret


def test_a_refused_request_is_not_sent_again(service: Service) -> None:
    service.on("POST", f"{JOB_PATH}/cancel", problem(409, "Conflict", detail="the job has ended"))
    service.on("PATCH", JOB_PATH, (503, b""))
    with Client() as client:
        with pytest.raises(CalibrlError, match="has ended"):
            client.cancel(JOB_ID)
        with pytest.raises(CalibrlError, match="answered 503"):
            client.edit(JOB_ID, notes="x")
    assert len(service.requests) == 2


def test_a_silent_server_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts; no process answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            Client(url, "k", timeout=0.1) as client,
            pytest.raises(CalibrlError, match="did not answer GET /v1/jobs in time"),
        ):
            client.jobs()


def test_a_job_whose_data_is_being_checked_is_waited_for(service: Service) -> None:
    checked = Event()
    service.on(
        "POST", "/v1/jobs", lambda: (201, job()) if checked.wait(LIMIT_SECONDS) else problem(500, "Not asked to go on")
    )
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Client(timeout=0.1) as client,
        Client(f"http://127.0.0.1:{silent.getsockname()[1]}", "k", timeout=0.1) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        submitted = pool.submit(client.submit, SPEC)
        eventually(lambda: service.requests)
        with pytest.raises(CalibrlError, match="in time"):  # asked later, and given up meanwhile
            other.jobs()
        checked.set()
        assert submitted.result(LIMIT_SECONDS).id == JOB_ID
