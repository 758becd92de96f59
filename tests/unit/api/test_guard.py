"""Every path needs a key but those that are listed, and look-ups of keys are counted."""

import asyncio
from uuid import uuid4

import httpx
import pytest
from sqlalchemy.exc import OperationalError
from starlette.types import Receive, Scope, Send

from api import middleware
from api.main import create_app
from api.middleware import OPEN_PATHS, RequestChecks
from jobs.access.callers import Caller


@pytest.mark.parametrize("prefix", ["", "/x"])
def test_a_path_needs_a_key_unless_it_is_listed(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.middleware.STRANGERS_AT_ONCE", 10_000)
    app = create_app()
    paths = set(app.openapi()["paths"]) - OPEN_PATHS | {"/", "/metrics", "/v1", "/v1/nothing", "/healthz/", "//v1/me"}

    async def answers() -> dict[str, int]:
        transport = httpx.ASGITransport(app, root_path=prefix)
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
            return {path: (await client.get(prefix + path)).status_code for path in sorted(paths)}

    assert {path: status for path, status in asyncio.run(answers()).items() if status != 401} == {}
    assert len(paths) > 60


async def no_app(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError


def answers_for(key: str, lookups: list[Caller | Exception | None], monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return what the checks answer to requests with one key, of which each look-up gives the next result."""
    results = iter(lookups)

    def caller(key: str, request_id: str) -> Caller | None:
        result = next(results)
        if isinstance(result, Exception):
            raise result
        return result

    async def scene() -> list[object]:
        checks, answers = RequestChecks(no_app, 1000), list[object]()
        headers = [(b"authorization", f"Bearer {key}".encode())]
        sent = {"path": "/v1/me", "client": ("192.0.2.1", 1), "state": {"request_id": "r"}}
        scope: Scope = {"type": "http", "headers": headers, **sent}
        for _ in lookups:
            try:
                answers.append(await checks._identified(scope))
            except OperationalError:
                answers.append("away")
        return answers

    monkeypatch.setattr(middleware, "_caller", caller)
    monkeypatch.setattr(middleware, "_note_refused", lambda *_: None)
    monkeypatch.setattr(middleware, "STRANGERS_AT_ONCE", 2)
    monkeypatch.setattr(middleware, "STRANGERS_PER_SECOND", 1e-6)
    return asyncio.run(scene())


KNOWN = Caller("ada", uuid4(), admin=False, scope="write")


def test_a_revoked_key_counts_as_that_of_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = answers_for("k", [KNOWN, None, None, None, None], monkeypatch)
    assert answers[:4] == [KNOWN, None, None, None]
    assert isinstance(answers[4], float)


def test_a_request_that_finds_no_database_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    away = OperationalError("SELECT 1", {}, Exception("away"))
    assert answers_for("k", [away, away, away, KNOWN], monkeypatch) == ["away", "away", "away", KNOWN]
