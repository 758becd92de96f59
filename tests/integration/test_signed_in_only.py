"""The dashboard's own app answers nothing but the sign-in without a session. The real API says which are valid."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from calibrl.schemas import TOKEN_PREFIX
from dashboard import signin
from dashboard.signed_in_only import AGAIN_SECONDS, AWAY, MOST_WAITING, REFUSED, SignedInOnly
from jobs.settings import get_settings
from tests.support import API_KEY
from tests.support.job_steps import run
from tests.support.rest import serving

pytestmark = pytest.mark.integration
PAGE = {"Accept": "text/html,*/*"}


async def _page(request: Request) -> Response:
    return PlainTextResponse("inside")


async def _stream(socket: WebSocket) -> None:
    await socket.accept()
    await socket.close()


ROUTES = [
    *signin.routes,
    Route("/_stcore/health", _page),
    WebSocketRoute("/_stcore/stream", _stream),
    Route("/{path:path}", _page, methods=["GET", "PUT", "POST", "OPTIONS"]),
]


@pytest.fixture
def api(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    with serving() as api:
        monkeypatch.setenv("CALIBRL_API_URL", str(api.base_url))
        get_settings.cache_clear()
        yield api


@pytest.fixture
def browser(api: httpx.Client) -> Iterator[TestClient]:
    app = Starlette(routes=ROUTES, middleware=[Middleware(SignedInOnly)])
    with TestClient(app, follow_redirects=False) as client:
        yield client


def is_let_in(browser: TestClient) -> bool:
    """Return True if the browser gets a page, a stream and an upload, False if it gets none of the three."""
    answers = {
        browser.get("/job").text == "inside",
        browser.put("/_stcore/upload_file/a/b", content=b"x").text == "inside",
        _streams(browser),
    }
    (answer,) = answers
    return answer


def _streams(browser: TestClient) -> bool:
    try:
        with browser.websocket_connect("/_stcore/stream"):
            return True
    except WebSocketDisconnect:
        return False


@pytest.mark.parametrize("value", ["", API_KEY, "calibrl-session-guessed", "calibrl-session-" + "x" * 10_000])
def test_without_a_session_only_the_sign_in_answers(browser: TestClient, value: str) -> None:
    if value:
        browser.cookies.set(signin.COOKIE, value)
    assert not is_let_in(browser)
    page = browser.get("/job?id=1", headers=PAGE)
    assert (page.status_code, page.headers["location"]) == (303, "/signin?next=%2Fjob%3Fid%3D1")
    for method in ("PUT", "POST", "OPTIONS"):
        assert browser.request(method, "/_stcore/upload_file/a/b", headers=PAGE).status_code == 401
    for path in ("/_stcore/host-config", "/static/js/index.js", "/signin/", "/_stcore/health/x"):
        assert browser.get(path).status_code == 401, path
    assert browser.get("/signin").status_code == browser.get("/_stcore/health").status_code == 200


def test_a_session_is_let_in_until_the_sign_out(browser: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    browser.post("/signin", data={"key": API_KEY})
    assert is_let_in(browser)
    token = browser.cookies[signin.COOKIE]
    browser.post("/signout")
    assert not is_let_in(browser)
    browser.cookies.clear()
    browser.cookies.set(signin.COOKIE, token)  # a copy of the cookie
    later = _clock(monkeypatch)
    later()
    assert not is_let_in(browser)


def test_a_revoked_key_ends_its_sessions(
    api: httpx.Client, browser: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = api.post("/v1/keys", json={"name": "laptop"}).json()
    browser.post("/signin", data={"key": made["key"]})
    later = _clock(monkeypatch)
    assert is_let_in(browser)
    api.delete(f"/v1/keys/{made['id']}")
    later()
    assert not is_let_in(browser)


def test_a_session_expires(browser: TestClient) -> None:
    browser.post("/signin", data={"key": API_KEY})
    run("UPDATE browser_sessions SET expires_at = now()")
    assert not is_let_in(browser)


def test_while_the_api_is_away_known_sessions_see_their_pages(
    browser: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser.post("/signin", data={"key": API_KEY})
    later = _clock(monkeypatch)
    assert is_let_in(browser)
    monkeypatch.setenv("CALIBRL_API_URL", "http://127.0.0.1:9")
    later()
    assert is_let_in(browser)
    browser.cookies.clear()
    browser.cookies.set(signin.COOKIE, "calibrl-session-other")
    assert browser.get("/job", headers=PAGE).status_code == 503


def test_with_tls_a_cookie_that_a_subdomain_can_set_does_not_count(browser: TestClient) -> None:
    browser.post("/signin", data={"key": API_KEY})
    assert browser.get("/job", headers={"X-Forwarded-Proto": "https"}).status_code == 401
    token = browser.cookies[signin.COOKIE]
    headers = {"X-Forwarded-Proto": "https", "Cookie": f"__Host-{signin.COOKIE}={token}"}
    assert browser.get("/job", headers=headers).text == "inside"


def test_strangers_do_not_hold_up_known_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, gate, later = list[str](), threading.Event(), _clock(monkeypatch)
    known, *strangers = (f"{TOKEN_PREFIX}{number}" for number in range(MOST_WAITING + 2))

    def status(token: str) -> int:
        asked.append(token)
        return 200 if token == known or not gate.wait(60) else 401

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    async def scene() -> None:
        door = SignedInOnly(app)
        assert await door._refusal(known) is None
        waiting = [asyncio.create_task(door._refusal(each)) for each in strangers]
        async with asyncio.timeout(60):
            while door._new_lookups.statistics().tasks_waiting < MOST_WAITING:
                await asyncio.sleep(0)
        assert await door._refusal(f"{TOKEN_PREFIX}one-more") == AWAY
        later()
        assert await door._refusal(known) is None
        gate.set()
        assert await asyncio.gather(*waiting) == [REFUSED] * len(strangers)
        assert await door._refusal(strangers[0]) == REFUSED

    monkeypatch.setattr("dashboard.signed_in_only._status", status)
    asyncio.run(scene())
    assert asked[:3] == [known, strangers[0], known] and len(asked) == len(set(asked)) + 1


def _clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that lets the time pass after which a session is asked for again."""
    passed = [0.0]
    real = time.monotonic
    monkeypatch.setattr("dashboard.signed_in_only.monotonic", lambda: real() + passed[0])

    def later() -> None:
        passed[0] += AGAIN_SECONDS

    return later
