"""The dashboard's sign-in over real HTTP, before the real API."""

from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

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


def test_a_valid_key_becomes_a_cookie_that_scripts_cannot_read(door: TestClient) -> None:
    answer = door.post("/signin", data={"key": API_KEY, "next": "/job?id=1"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/job?id=1")
    cookie = answer.headers["set-cookie"]
    assert f"{signin.COOKIE}={API_KEY}" in cookie.replace('"', "")
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
    out = door.post("/signout")
    assert out.status_code == 303 and "Max-Age=0" in out.headers["set-cookie"]


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
    assert f"{signin.COOKIE}={API_KEY}" in answer.headers["set-cookie"].replace('"', "")
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
