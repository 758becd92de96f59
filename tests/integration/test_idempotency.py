"""`Idempotency-Key` over real HTTP: whatever breaks in between, a request is done once."""

import json
import socket
import threading
from collections.abc import Iterator
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
from jobs.settings import get_settings
from tests.support import API_KEY, life
from tests.support.rest import named, refused, serving
from tests.support.waiting import LIMIT_SECONDS

pytestmark = pytest.mark.integration


@pytest.fixture
def client(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    monkeypatch.setenv("CALIBRL_SWEEP_SECONDS", "3600")
    get_settings.cache_clear()
    with serving() as client:
        yield client


def post(client: httpx.Client, key: str, path: str = "/v1/jobs", body: Any = TRAIN) -> httpx.Response:
    return client.post(path, json=body, headers={"Idempotency-Key": key})


def count() -> int:
    return life.run_count("SELECT count(*) FROM jobs")


def test_the_same_request_gets_the_same_answer(client: httpx.Client) -> None:
    first = post(client, "one")
    life.run("UPDATE jobs SET name = 'changed meanwhile'")
    again = post(client, "one")
    assert (again.status_code, again.content) == (201, first.content)
    for header in ("location", "content-type"):
        assert again.headers[header] == first.headers[header]
    assert (again.headers["idempotent-replayed"], "idempotent-replayed" in first.headers) == ("true", False)
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert post(client, "two").json()["id"] != first.json()["id"]
    assert count() == 2


def test_a_post_without_a_body_too(client: httpx.Client) -> None:
    path = post(client, "job").headers["location"]
    first = post(client, "cancel", f"{path}/cancel", None)
    assert post(client, "cancel", f"{path}/cancel", None).json() == first.json()
    refused(client.post(f"{path}/cancel"), 409)


def test_a_key_is_good_for_one_request(client: httpx.Client) -> None:
    post(client, "one")
    assert named(post(client, "one", body=TRAIN | {"name": "another"})) == ["Idempotency-Key"]
    assert named(post(client, "one", "/v1/jobs:plan")) == ["Idempotency-Key"]
    assert count() == 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é".encode()])
def test_keys_that_can_not_be_used(client: httpx.Client, key: str | bytes) -> None:
    answer = client.post("/v1/jobs", json=TRAIN, headers={"Idempotency-Key": key})
    assert named(answer) == ["Idempotency-Key"]
    assert post(client, "!" * 255).status_code == 201


def test_what_was_refused_or_crashed_is_not_remembered(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert named(post(client, "one", body=TRAIN | {"project": "new"})) == ["project"]
    assert named(post(client, "one", body=TRAIN | {"steps": 0})) == ["steps"]
    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, "submit", lambda *args, **options: 1 / 0)
        refused(post(client, "one"), 500)
    assert life.run_count("SELECT count(*) FROM idempotency_keys") == 0
    client.put("/v1/projects/new", json={})
    assert post(client, "one", body=TRAIN | {"project": "new"}).status_code == 201


def test_a_request_that_is_being_answered_is_in_flight(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    submit, began, go_on = lifecycle.submit, threading.Event(), threading.Event()

    def slow(*args: Any, **options: Any) -> Any:
        began.set()
        assert go_on.wait(LIMIT_SECONDS)
        return submit(*args, **options)

    monkeypatch.setattr(lifecycle, "submit", slow)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, client, "one")
        assert began.wait(LIMIT_SECONDS)
        problem = refused(post(client, "one"), 409)
        assert problem["type"] == "urn:calibrl:in-flight"
        go_on.set()
        assert first.result(LIMIT_SECONDS).status_code == 201
    assert post(client, "one").content == first.result().content
    assert count() == 1


def test_many_at_once_make_one_job(client: httpx.Client) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: post(client, "one"), range(32)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert count() == 1


def test_no_answer_is_lost_between_the_commit_and_the_client(client: httpx.Client) -> None:
    """The connection is cut once the request is sent; the job may be there or not. Sent again, it is there once."""
    url = client.base_url
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


def test_a_commit_that_fails_keeps_no_answer(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    store = door._Key.store

    def broken(key: Any, response: Any) -> None:
        store(key, response)
        raise ConnectionError("the service dies here, before the commit")

    with monkeypatch.context() as patch:
        patch.setattr(door._Key, "store", broken)
        refused(post(client, "one"), 500)
    assert (count(), life.run_count("SELECT count(*) FROM idempotency_keys")) == (0, 0)
    assert post(client, "one").status_code == 201


def test_a_key_is_its_callers_own(database: str) -> None:
    with session_scope() as session:
        answer: dict[str, Any] = {"status": 200, "location": None, "media_type": None, "body": b"1"}
        idempotency.store(session, b"ann", "one", request=b"r", **answer)
        assert idempotency.find(session, b"bob", "one") is None
        assert idempotency.find(session, b"ann", "one") is not None


def test_after_a_day_a_key_is_free_again(client: httpx.Client) -> None:
    first = post(client, "one")
    life.run("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
    assert post(client, "one").json()["id"] != first.json()["id"]  # also before the sweep has removed it
    life.run("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
    post(client, "two")
    life.sweep()
    assert life.run_count("SELECT count(*) FROM idempotency_keys") == 1


def test_every_post_heeds_its_key() -> None:
    paths = create_app().openapi()["paths"]
    posts = {path: each["post"] for path, each in paths.items() if "post" in each and path.startswith("/v1/")}
    assert len(posts) > 5
    for path, post in posts.items():
        assert [one["name"] for one in post["parameters"]].count("Idempotency-Key") == 1, path
