"""Filters of the audit log, of users and of keys."""

from typing import Any

import httpx
import pytest

from tests.support.api_users import ApiUsers
from tests.support.rest import submitted

pytestmark = pytest.mark.integration


def listed(client: httpx.Client, path: str, **params: str) -> list[dict[str, Any]]:
    answer = client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    data: list[dict[str, Any]] = answer.json()["data"]
    return data


def test_the_audit_log_is_filtered_by_action_and_time(admin: httpx.Client, users: ApiUsers) -> None:
    ann = users.add("ann", {"default": "member"})
    job = users.post(ann, "/v1/jobs", submitted(admin)["spec"]).json()
    users.post(ann, f"/v1/jobs/{job['id']}/cancel")
    (entry, *_) = listed(admin, "/v1/audit", user="ann")
    assert [one["id"] for one in listed(admin, "/v1/audit", user="ann", action="/CANCEL")] == [entry["id"]]
    assert listed(admin, "/v1/audit", action="/%") == []  # no pattern
    before = listed(admin, "/v1/audit", user="ann", created_before=entry["ts"])
    after = listed(admin, "/v1/audit", user="ann", created_after=entry["ts"])
    assert [one["action"] for one in (*after, *before)] == ["POST /v1/jobs/{job_id}/cancel", "POST /v1/jobs"]


def test_users_and_keys_are_filtered(admin: httpx.Client, users: ApiUsers) -> None:
    users.add("ann", {})
    users.add("annika", {}, admin=True)
    users.add("bob", {})
    assert admin.patch("/v1/users/ann", json={"active": False}).status_code == 200
    assert [one["name"] for one in listed(admin, "/v1/users", q="ann")] == ["ann", "annika"]
    assert [one["name"] for one in listed(admin, "/v1/users", q="ann", active="true")] == ["annika"]
    assert [one["name"] for one in listed(admin, "/v1/users", admin="false", active="true")] == ["bob"]
    read = admin.post("/v1/keys", json={"name": "r", "user": "bob", "scope": "read"}).json()
    assert admin.delete(f"/v1/keys/{read['id']}").status_code == 200
    assert [one["name"] for one in listed(admin, "/v1/keys", user="bob", valid="true")] == ["test"]
    assert [one["name"] for one in listed(admin, "/v1/keys", user="bob", valid="false")] == ["r"]
    assert [one["name"] for one in listed(admin, "/v1/keys", user="bob", scope="write")] == ["test"]
