"""`Idempotency-Key` over real HTTP: a request is done once, also if the connection or a process fails."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from api import idempotency as door
from api.examples import TRAIN
from api.main import create_app
from calibrl.client import Client
from jobs import lifecycle
from jobs.db import session_scope
from jobs.repository import idempotency
from tests.support import API_KEY, job_steps
from tests.support.rest import named, refused
from tests.support.waiting import LIMIT_SECONDS

pytestmark = pytest.mark.integration


def post(http: httpx.Client, key: str, path: str = "/v1/jobs", body: Any = TRAIN) -> httpx.Response:
    return http.post(path, json=body, headers={"Idempotency-Key": key})


def count() -> int:
    return job_steps.run_count("SELECT count(*) FROM jobs")


def test_the_same_request_gets_the_same_answer(http: httpx.Client) -> None:
    first = post(http, "one")
    job_steps.run("UPDATE jobs SET name = 'changed meanwhile'")
    again = post(http, "one")
    assert (again.status_code, again.content) == (201, first.content)
    for header in ("location", "content-type"):
        assert again.headers[header] == first.headers[header]
    assert (again.headers["idempotent-replayed"], "idempotent-replayed" in first.headers) == ("true", False)
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert post(http, "two").json()["id"] != first.json()["id"]
    assert count() == 2


def test_a_post_without_a_body_too(http: httpx.Client) -> None:
    path = post(http, "job").headers["location"]
    first = post(http, "cancel", f"{path}/cancel", None)
    assert post(http, "cancel", f"{path}/cancel", None).json() == first.json()
    refused(http.post(f"{path}/cancel"), 409)


def test_a_key_is_good_for_one_request(http: httpx.Client) -> None:
    post(http, "one")
    assert named(post(http, "one", body=TRAIN | {"name": "another"})) == ["Idempotency-Key"]
    assert named(post(http, "one", "/v1/jobs:plan")) == ["Idempotency-Key"]
    assert count() == 1


@pytest.mark.parametrize("key", [b"", b"a b", b"x" * 256, "é".encode()])
def test_unusable_idempotency_keys_are_refused(http: httpx.Client, key: bytes) -> None:
    answer = http.post("/v1/jobs", json=TRAIN, headers={b"Idempotency-Key": key})
    assert named(answer) == ["Idempotency-Key"]
    assert post(http, "!" * 255).status_code == 201


def test_refused_and_crashed_requests_are_not_stored(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert named(post(http, "one", body=TRAIN | {"project": "new"})) == ["project"]
    assert named(post(http, "one", body=TRAIN | {"steps": 0})) == ["steps"]
    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, "submit", lambda *args, **options: 1 / 0)
        refused(post(http, "one"), 500)
    assert job_steps.run_count("SELECT count(*) FROM idempotency_keys") == 0
    http.put("/v1/projects/new", json={})
    assert post(http, "one", body=TRAIN | {"project": "new"}).status_code == 201


def test_a_request_that_is_being_answered_is_in_flight(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    submit, began, go_on = lifecycle.submit, threading.Event(), threading.Event()

    def slow(*args: Any, **options: Any) -> Any:
        began.set()
        assert go_on.wait(LIMIT_SECONDS)
        return submit(*args, **options)

    monkeypatch.setattr(lifecycle, "submit", slow)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, http, "one")
        assert began.wait(LIMIT_SECONDS)
        problem = refused(post(http, "one"), 409)
        assert problem["type"] == "urn:calibrl:in-flight"
        go_on.set()
        assert first.result(LIMIT_SECONDS).status_code == 201
    assert post(http, "one").content == first.result().content
    assert count() == 1


def test_many_at_once_make_one_job(http: httpx.Client) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: post(http, "one"), range(32)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert count() == 1


def test_no_answer_is_lost_between_the_commit_and_the_client(http: httpx.Client) -> None:
    """The connection is cut once the request is sent; the job may be there or not. Sent again, it is there once."""
    url = http.base_url
    body = json.dumps(TRAIN).encode()
    head = [
        "POST /v1/jobs HTTP/1.1",
        f"Host: {url.host}",
        f"Authorization: Bearer {API_KEY}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Idempotency-Key: cut",
    ]
    with socket.create_connection((url.host, url.port or 80)) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode() + body)
    with Client(str(url), API_KEY) as other, pytest.MonkeyPatch.context() as patch:
        patch.setattr("calibrl.client.connection.uuid4", lambda: type("Key", (), {"hex": "cut"}))
        job = other.submit(TRAIN)
        assert other.submit(TRAIN).id == job.id
    assert count() == 1


def test_a_commit_that_fails_keeps_no_answer(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    store = door._Key.store

    def broken(key: Any, response: Any) -> None:
        store(key, response)
        raise ConnectionError("the service dies here, before the commit")

    with monkeypatch.context() as patch:
        patch.setattr(door._Key, "store", broken)
        refused(post(http, "one"), 500)
    assert (count(), job_steps.run_count("SELECT count(*) FROM idempotency_keys")) == (0, 0)
    assert post(http, "one").status_code == 201


def test_a_key_belongs_to_its_caller(database: str) -> None:
    with session_scope() as session:
        answer: dict[str, Any] = {"status": 200, "location": None, "media_type": None, "body": b"1"}
        idempotency.store(session, b"ann", "one", request=b"r", **answer)
        assert idempotency.find(session, b"bob", "one") is None
        assert idempotency.find(session, b"ann", "one") is not None


def test_after_a_day_a_key_is_free_again(http: httpx.Client) -> None:
    first = post(http, "one")
    job_steps.run("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
    assert post(http, "one").json()["id"] != first.json()["id"]  # also before the sweep has removed it
    job_steps.run("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
    post(http, "two")
    job_steps.sweep()
    assert job_steps.run_count("SELECT count(*) FROM idempotency_keys") == 1


def test_every_post_uses_its_idempotency_key() -> None:
    paths = create_app().openapi()["paths"]
    posts = {path: each["post"] for path, each in paths.items() if "post" in each and path.startswith("/v1/")}
    assert len(posts) > 5
    graders = "/v1/fine_tuning/alpha/graders"  # these write nothing
    for path, post in ((path, post) for path, post in posts.items() if not path.startswith(graders)):
        assert [one["name"] for one in post["parameters"]].count("Idempotency-Key") == 1, path
