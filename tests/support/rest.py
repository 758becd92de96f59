"""The API over real HTTP, as tests speak to it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import structlog
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from api import main
from api.examples import TRAIN
from jobs.settings import get_settings
from tests.support.waiting import LIMIT_SECONDS


def fresh_app() -> FastAPI:
    """Return the API, without what its middleware remembers of another test."""
    main.app.middleware_stack = None  # built with the next request; building the routes takes longer than most tests
    return main.app


@contextmanager
def serving(app: ASGIApp | None = None) -> Iterator[httpx.Client]:
    """Serve the API on a free port and yield a client with the key."""
    listener = socket.create_server(("127.0.0.1", 0))  # clients connect at once, and wait until the server accepts
    server = uvicorn.Server(uvicorn.Config(app or fresh_app(), log_level="warning", timeout_graceful_shutdown=3))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    key = get_settings().need("api_key")
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        headers = {"Authorization": f"Bearer {key}"}
        transport = httpx.HTTPTransport(verify=False)  # without TLS certificates, which take 80 ms to read
        with httpx.Client(base_url=url, headers=headers, timeout=LIMIT_SECONDS, transport=transport) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(LIMIT_SECONDS)
        structlog.reset_defaults()
    assert not thread.is_alive()
    assert not [each for each in threading.enumerate() if each.name == "sweeper"]


def submitted(client: httpx.Client, **changes: Any) -> dict[str, Any]:
    answer = client.post("/v1/jobs", json={**TRAIN, **changes})
    assert answer.status_code == 201, answer.text
    job: dict[str, Any] = answer.json()
    return job


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document of an answer."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["instance"] == answer.request.url.path
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["title"] and problem["detail"] and problem["type"]
    return problem


def named(answer: httpx.Response) -> list[str]:
    return [error["field"] for error in refused(answer, 422)["errors"]]
