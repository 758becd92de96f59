"""The client over real HTTP: what it sends, what it makes of the answers, and its errors in one line."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest

from api.idempotency import REPLAYED, SHOWN_ONCE
from calibrl.client import CalibrlError, Client, connection, read_stack
from calibrl.folder_lock import folder_lock
from calibrl.schemas import JobStatus, NewWebhook, ProjectSettings, job_spec_adapter
from tests.support.waiting import LIMIT_SECONDS, eventually

from .conftest import JOB_ID, KEY, Service, calibrl, entry, fault, job, machine, page, problem, project

JOB_PATH = f"/v1/jobs/{JOB_ID}"
SPEC = {
    "kind": "train",
    "name": "digits",
    "model": {"builtin": "tiny-vlm"},
    "data": {"builtin": "digits"},
    "prompts_per_step": 8,
    "steps": 10,
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stack_file(url: str) -> str:
    return json.dumps({"api_url": url, "dashboard_url": "http://x", "api_key": "key-of-the-stack"})


@contextmanager
def running_stack(folder: Path, content: str) -> Iterator[None]:
    """Write the stack file and hold the folder's lock, as a running stack does."""
    folder.mkdir(exist_ok=True)
    (folder / "stack.json").write_text(content)
    with folder_lock(folder):
        yield


def test_a_job_is_posted_with_the_key_and_read_back(service: Service) -> None:
    service.on("POST", "/v1/jobs", (201, job()))
    with Client() as client:
        submitted = client.submit(SPEC)
    request = service.requests[0]
    assert (submitted.id, submitted.status) == (JOB_ID, JobStatus.RUNNING)
    assert (request.body, request.headers["Authorization"]) == (SPEC, f"Bearer {KEY}")


def test_a_spec_model_is_posted_as_its_author_wrote_it(service: Service) -> None:
    service.on("POST", "/v1/jobs", (201, job()))
    with Client() as client:
        client.submit(job_spec_adapter.validate_python(SPEC))
    assert service.requests[0].body == SPEC | {"model": {"builtin": "tiny-vlm"}, "data": {"builtin": "digits"}}


def test_only_the_given_parameters_are_sent(service: Service) -> None:
    service.on("GET", "/v1/jobs", page(job()))
    service.on("GET", f"{JOB_PATH}/metrics", page({"step": 1, "ts": "2026-01-01T00:00:00Z", "values": {"a/b": "NaN"}}))
    with Client() as client:
        client.jobs(status=JobStatus.FAILED, after=JOB_ID)
        rows = client.metrics(JOB_ID, names=["a/b", "c/d"], after_step=-1).data
    assert service.requests[0].query == {"status": "failed", "after": str(JOB_ID), "limit": "100"}
    assert service.requests[1].query == {"names": "a/b,c/d", "after_step": "-1", "limit": "1000"}
    assert rows[0].values == {"a/b": "NaN"}


def test_a_job_id_stays_one_part_of_the_path(service: Service) -> None:
    with Client() as client, pytest.raises(CalibrlError):
        client.job("../workers?x=")
    assert service.requests[0].path == "/v1/jobs/..%2Fworkers%3Fx%3D"


def test_actions_on_a_job_are_posted(service: Service) -> None:
    for verb in ("cancel", "pause", "resume", "retry"):
        service.on("POST", f"{JOB_PATH}/{verb}", job(status="queued"))
    service.on("PATCH", JOB_PATH, job(priority="high"))
    with Client() as client:
        for ask in (client.cancel, client.pause, client.resume, client.retry):
            assert ask(JOB_ID).status is JobStatus.QUEUED
        assert client.prioritise(JOB_ID, "high").priority == "high"
    sent = [(request.method, request.path.rpartition("/")[2], request.body) for request in service.requests]
    assert sent[:4] == [("POST", verb, None) for verb in ("cancel", "pause", "resume", "retry")]
    assert sent[4] == ("PATCH", str(JOB_ID), {"priority": "high"})


def test_queue_machines_projects_and_usage(service: Service) -> None:
    used = {"project": "vision", "user": "ann", "slot_hours": 1.5, "gpu_hours": 0, "budget_slot_hours": None}
    service.on("GET", "/v1/queue", page(entry()))
    service.on("GET", "/v1/workers", page(machine()))
    service.on("POST", "/v1/workers/gpu%201/drain", machine(status="stopping"))
    service.on("POST", "/v1/workers/gpu%201/undrain", machine())
    service.on("GET", "/v1/projects", page(project()))
    service.on("GET", "/v1/projects/vision", project())
    service.on("PUT", "/v1/projects/vision", project(max_gpus=4))
    service.on("GET", "/v1/usage", page(used))
    with Client() as client:
        assert client.queue("vision")[0].reason == "busy"
        assert service.requests[-1].query == {"project": "vision"}
        assert client.workers()[0].gpus[0].job_id == JOB_ID
        assert client.drain("gpu 1", now=True).status == "stopping"
        assert service.requests[-1].body == {"now": True}
        assert client.undrain("gpu 1").status == "online"
        assert [one.slug for one in client.projects()] == ["vision"]
        assert client.project("vision").weight == 1.0
        assert client.put_project("vision", ProjectSettings(max_gpus=4)).max_gpus == 4
        assert service.requests[-1].body == {"max_gpus": 4}
        assert client.usage()[0].slot_hours == 1.5


def test_image_bytes_are_returned_unchanged(service: Service) -> None:
    service.on("GET", f"{JOB_PATH}/images/ab", b"\x89PNG")
    with Client() as client:
        assert client.image(JOB_ID, "ab") == b"\x89PNG"


def test_an_error_names_the_cause_field_and_fix_in_one_line(service: Service) -> None:
    errors = [{"field": "steps", "message": "must be at least 1"}, {"field": "seed", "message": "must be\na number"}]
    service.on("POST", "/v1/jobs", problem(422, "Invalid job spec", detail="2 fields", errors=errors))
    with Client() as client, pytest.raises(CalibrlError) as caught:
        client.submit({})
    assert str(caught.value) == "Invalid job spec: steps: must be at least 1; seed: must be a number"
    assert (caught.value.status, caught.value.detail, list(caught.value.errors)) == (422, "2 fields", errors)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (problem(409, "Conflict", detail="the job has ended"), "Conflict: the job has ended"),
        ((500, b"<html>oops</html>"), "{url}" + f"{JOB_PATH} answered 500"),
        ((302, b""), "{url}" + f"{JOB_PATH} answered 302"),
        ((200, b"<html>hello</html>"), "{url}" + f"{JOB_PATH} answered with something that is no Job: body: "),
        ((200, {}), "{url}" + f"{JOB_PATH} answered with something that is no Job: id: Field required"),
    ],
)
def test_every_bad_answer_is_one_line(service: Service, answer: Any, line: str) -> None:
    service.on("GET", JOB_PATH, answer)
    with Client() as client, pytest.raises(CalibrlError) as caught:
        client.job(JOB_ID)
    assert str(caught.value).startswith(line.format(url=service.url))
    assert "\n" not in str(caught.value)


def test_a_read_is_tried_again_when_a_proxy_hiccups(service: Service) -> None:
    service.on("GET", JOB_PATH, (503, b""), (504, b""), job())
    with Client() as client:
        assert client.job(JOB_ID).id == JOB_ID
    assert len(service.requests) == 3


def test_a_read_that_keeps_failing_is_given_up(service: Service) -> None:
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


def test_a_secret_whose_answer_was_lost_is_no_secret(service: Service) -> None:
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
    lost = f"the key was made, but the answer that showed it was lost on the way: revoke {JOB_ID} and make another"
    assert lost in fault(calibrl("keys", "create", "laptop"), 1)
    assert lost in fault(calibrl("users", "add", "ada"), 1)
    with Client() as client:
        with pytest.raises(CalibrlError, match=f"remove webhook {JOB_ID} and make another"):
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


def test_unready_is_an_answer(service: Service) -> None:
    service.on("GET", "/readyz", (503, {"ok": False, "checks": {"broker": "refused"}}))
    with Client() as client:
        health = client.ready()
    assert (health.ok, health.checks) == (False, {"broker": "refused"})


def test_a_refused_connection_names_the_address_and_the_fix(service: Service) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url, "k") as client, pytest.raises(CalibrlError) as caught:
        client.jobs()
    assert str(caught.value) == f"nothing answers at {url}: start the service with `calibrl up`"


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


def test_values_json_cannot_hold_are_refused_before_sending(service: Service) -> None:
    with Client() as client, pytest.raises(CalibrlError, match="JSON cannot express"):
        client.submit(SPEC | {"seed": float("nan")})
    assert service.requests == []


@pytest.mark.parametrize("url", ["localhost:8000", "", "http://", "ftp://host", "http://host:port"])
def test_an_invalid_address_is_refused(service: Service, url: str) -> None:
    with pytest.raises(CalibrlError, match="is not the URL of a service: use one like http://127"):
        Client(url, "k")


def test_a_key_that_no_header_can_carry(service: Service) -> None:
    with pytest.raises(CalibrlError, match="CALIBRL_API_KEY"):
        Client(service.url, "schlüssel\n")


def test_the_local_stack_is_asked_where_nothing_else_is_set(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CALIBRL_API_URL")
    monkeypatch.delenv("CALIBRL_API_KEY")
    service.on("GET", "/v1/jobs", page())
    with running_stack(tmp_path / "data", stack_file(service.url)), Client() as client:
        client.jobs()
    assert service.requests[0].headers["Authorization"] == "Bearer key-of-the-stack"


@pytest.mark.parametrize("key", [None, "a-key"])
def test_an_address_with_a_login_is_refused_and_not_shown(service: Service, key: str | None) -> None:
    with pytest.raises(CalibrlError, match="has a login in it: remove the login") as refused:
        Client("http://ann:secret@127.0.0.1:8000", key)
    assert "secret" not in str(refused.value)


def test_the_stacks_key_goes_to_no_other_address(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CALIBRL_API_KEY")
    with (
        running_stack(tmp_path / "data", stack_file("http://127.0.0.1:1")),
        pytest.raises(CalibrlError, match=f"no local stack is running .* no key for {service.url} is set"),
    ):
        Client()


def test_a_folder_names_its_stack_before_the_environment_does(service: Service, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with running_stack(other, stack_file("http://127.0.0.1:1")), Client(data_dir=other) as client:
        assert client.url == "http://127.0.0.1:1"
    with pytest.raises(CalibrlError, match=f"no stack is running on {tmp_path}: start one with `calibrl up --data"):
        Client(data_dir=tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "\xff", '{"api_url": "http://127.0.0.1:1"}'])
def test_a_broken_stack_file_is_one_line(service: Service, tmp_path: Path, content: str) -> None:
    with running_stack(tmp_path, content), pytest.raises(CalibrlError, match=r"stack\.json"):
        Client(data_dir=tmp_path)


def test_the_file_of_a_killed_stack_is_ignored(service: Service, tmp_path: Path) -> None:
    """Another process can use its port by now and must not get its key."""
    with running_stack(tmp_path, stack_file(service.url)):
        assert read_stack(tmp_path) is not None
    assert (tmp_path / "stack.json").exists()
    assert read_stack(tmp_path) is None
    with pytest.raises(CalibrlError, match=f"no stack is running on {tmp_path}"):
        Client(data_dir=tmp_path)
