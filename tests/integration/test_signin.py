"""The dashboard's sign-in over real HTTP, before the real API."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.cookies import SimpleCookie

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from calibrl.client import CalibrlError, Client
from dashboard import signin
from jobs.settings import get_settings
from tests.support import API_KEY
from tests.support.rest import serving

pytestmark = pytest.mark.integration
TOKEN = "a-token-of-the-printed-address"


@pytest.fixture
def door(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    with serving() as api:
        monkeypatch.setenv("CALIBRL_API_URL", str(api.base_url))
        monkeypatch.setenv("CALIBRL_DASHBOARD_TOKEN", TOKEN)
        get_settings.cache_clear()
        with TestClient(Starlette(routes=signin.routes), follow_redirects=False) as client:
            yield client


def status(token: str) -> int | None:
    """The API's answer to a token or key."""
    try:
        with Client(api_key=token) as client:
            client.me()
    except CalibrlError as error:
        return error.status
    return 200


def test_a_key_begins_a_session_of_hours_that_the_sign_out_ends(door: TestClient) -> None:
    answer = door.post("/signin", data={"key": API_KEY, "next": "/job?id=1"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/job?id=1")
    cookie = SimpleCookie(answer.headers["set-cookie"])[signin.COOKIE]
    assert cookie["httponly"] and cookie["samesite"] == "lax" and not cookie["secure"]
    lasts = parsedate_to_datetime(cookie["expires"]) - datetime.now(UTC)
    assert timedelta(hours=11.9) < lasts <= timedelta(hours=12)
    assert API_KEY not in cookie.value and status(cookie.value) == 200
    out = door.post("/signout")
    assert out.status_code == 303 and "Max-Age=0" in out.headers["set-cookie"]
    assert (status(cookie.value), status(API_KEY)) == (401, 200)


def test_with_tls_the_cookie_is_bound_to_the_host(door: TestClient) -> None:
    proxy = {"X-Forwarded-Proto": "https"}
    answer = door.post("/signin", data={"key": API_KEY}, headers=proxy)
    cookie = SimpleCookie(answer.headers["set-cookie"])[f"__Host-{signin.COOKIE}"]
    assert cookie["secure"] and cookie["path"] == "/" and not cookie["domain"]
    out = door.post("/signout", headers=proxy | {"Cookie": f"__Host-{signin.COOKIE}={cookie.value}"})
    assert out.headers["set-cookie"].startswith(f'__Host-{signin.COOKIE}="";') and status(cookie.value) == 401


def test_a_session_that_cannot_be_ended_stays_in_the_browser(door: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    door.post("/signin", data={"key": API_KEY})
    monkeypatch.setenv("CALIBRL_API_URL", "http://127.0.0.1:9")
    answer = door.post("/signout")
    assert answer.status_code == 503 and "Sign-out failed" in answer.text and "set-cookie" not in answer.headers


def test_other_keys_are_refused_and_not_repeated(door: TestClient) -> None:
    answer = door.post("/signin", data={"key": '"><script>alert(1)</script>'})
    assert answer.status_code == 401 and "set-cookie" not in answer.headers
    assert "<script" not in answer.text and "Invalid, revoked or expired API key" in answer.text


@pytest.mark.parametrize("to", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_no_redirect_leads_to_another_site(door: TestClient, to: str) -> None:
    assert door.post("/signin", data={"key": API_KEY, "next": to}).headers["location"] == "/"
    assert 'name="next" value="/"' in door.get("/signin", params={"next": to}).text


def test_forms_of_other_sites_have_no_effect(door: TestClient) -> None:
    evil = {"Origin": "https://evil.example"}
    assert door.post("/signin", data={"key": API_KEY}, headers=evil).status_code == 403
    assert "set-cookie" not in door.post("/signout", headers=evil).headers


def test_the_token_of_the_printed_address_signs_in_with_the_stacks_key(door: TestClient) -> None:
    answer = door.get("/signin", params={"token": TOKEN, "next": "/queue"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/queue")
    assert status(SimpleCookie(answer.headers["set-cookie"])[signin.COOKIE].value) == 200
    assert answer.headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize("token", ["", "another", TOKEN[:-1], f"{TOKEN}x"])
def test_another_token_does_not_sign_in(door: TestClient, token: str) -> None:
    answer = door.get("/signin", params={"token": token})
    assert answer.status_code == 401 and "set-cookie" not in answer.headers


def test_without_a_token_in_the_settings_none_is_accepted(door: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CALIBRL_DASHBOARD_TOKEN")
    get_settings.cache_clear()
    assert door.get("/signin", params={"token": ""}).status_code == 401


def test_the_services_own_key_does_not_replace_a_cookie(door: TestClient) -> None:
    assert signin.own() == API_KEY
    with pytest.raises(signin.SignedOut):
        signin.key_of({})


def test_the_form_runs_nothing(door: TestClient) -> None:
    page = door.get("/signin")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
