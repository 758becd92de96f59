"""A live stream ends with the right to see it."""

from collections.abc import Callable, Iterator

import httpx
import pytest

from api import live, stream_permissions
from tests.support import job_steps
from tests.support.api_users import ApiUsers
from tests.support.rest import serving
from tests.support.waiting import LIMIT_SECONDS

pytestmark = pytest.mark.integration
Lose = Callable[[httpx.Client, str], httpx.Response]


@pytest.fixture
def service(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    monkeypatch.setattr(live, "KEEP_ALIVE_SECONDS", 0.1)
    monkeypatch.setattr(stream_permissions, "AGAIN_SECONDS", 0.1)
    with serving() as client:
        yield client


def revoke(admin: httpx.Client, key: str) -> httpx.Response:
    [found] = admin.get("/v1/keys", params={"user": "ann"}).json()["data"]
    return admin.delete(f"/v1/keys/{found['id']}")


def leave(admin: httpx.Client, key: str) -> httpx.Response:
    return admin.delete("/v1/projects/default/members/ann")


def deactivate(admin: httpx.Client, key: str) -> httpx.Response:
    return admin.patch("/v1/users/ann", json={"active": False})


@pytest.mark.parametrize(
    ("path", "lose"), [("job", revoke), ("job", leave), ("job", deactivate), ("all", revoke), ("all", deactivate)]
)
def test_a_stream_ends_with_the_right_to_see_it(service: httpx.Client, path: str, lose: Lose) -> None:
    job = job_steps.submit()
    with ApiUsers(service) as users:
        key = users.add("ann", {"default": "viewer"})
    address = f"/v1/jobs/{job}/stream" if path == "job" else "/v1/stream"
    headers = {"Authorization": f"Bearer {key}"}
    with service.stream("GET", address, headers=headers, params={"max_seconds": 60}, timeout=LIMIT_SECONDS) as stream:
        lines = stream.iter_lines()
        next(lines)
        assert lose(service, key).status_code < 300
        for _ in lines:  # to its end, long before the minute is over
            pass


def test_the_stream_of_all_jobs_follows_the_roles(service: httpx.Client) -> None:
    with ApiUsers(service) as users:
        key = users.add("ann", {})
        job = job_steps.submit()
        headers = {"Authorization": f"Bearer {key}"}
        with service.stream(
            "GET", "/v1/stream", headers=headers, params={"max_seconds": 60}, timeout=LIMIT_SECONDS
        ) as stream:
            lines = stream.iter_lines()
            next(lines)
            answer = service.put("/v1/projects/default/members/ann", json={"role": "viewer"})
            assert answer.status_code == 200
            for _ in range(4):  # keep-alives: what was found before no longer counts
                while next(lines) != ": still here":
                    pass
            job_steps.cancel(job)
            assert any(str(job) in line for line in lines)
