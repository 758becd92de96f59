"""Keys, users, roles: who is let in, what they see, and what they may change."""

import json
import subprocess
import sys
from typing import Any
from uuid import UUID

import httpx
import pytest

from api import middleware
from api.examples import TRAIN
from api.routes import access
from calibrl.client import CalibrlError, Client
from calibrl.schemas import NewKey
from jobs.access import callers
from jobs.db import session_scope
from jobs.lifecycle import sweep
from jobs.models import ApiKey
from jobs.settings import get_settings
from tests.support import API_KEY, ROOT
from tests.support.api_users import ApiUsers
from tests.support.job_steps import run, run_count
from tests.support.rest import named, refused, serving, submitted
from tests.support.waiting import LIMIT_SECONDS

pytestmark = pytest.mark.integration


def test_a_key_is_shown_once_and_kept_as_its_hash(admin: httpx.Client, users: ApiUsers) -> None:
    made = admin.post("/v1/keys", json={"name": "laptop"}).json()
    assert made["key"].startswith("calibrl_") and len(made["key"]) == len("calibrl_") + 43
    assert made["key"].startswith(made["prefix"]) and len(made["prefix"]) == 14
    (listed,) = [key for key in admin.get("/v1/keys").json()["data"] if key["id"] == made["id"]]
    assert "key" not in listed and listed["last_used_at"] is None
    assert users.get(made["key"], "/v1/me").json()["user"] == "admin"
    assert admin.get("/v1/keys").json()["data"][0]["last_used_at"] is not None
    with session_scope() as session:
        kept = session.get_one(ApiKey, made["id"])
        assert len(kept.sha256) == 32 and made["key"].encode() not in kept.sha256


def test_a_key_is_not_kept_for_a_request_that_is_sent_again(admin: httpx.Client) -> None:
    first, again = (admin.post("/v1/keys", json={"name": "k"}, headers={"Idempotency-Key": "one"}) for _ in range(2))
    assert again.headers["idempotent-replayed"] == "true" and again.json()["id"] == first.json()["id"]
    assert first.json()["key"] not in again.text
    found = f"position('{first.json()['key']}' in encode(body, 'escape')) > 0"
    assert run_count(f"SELECT count(*) FROM idempotency_keys WHERE {found}") == 0


def test_a_key_whose_answer_was_lost_is_not_taken_for_one(admin: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first answer never comes to the client, which asks again under its key."""
    monkeypatch.setattr("calibrl.client.connection.uuid4", lambda: type("Key", (), {"hex": "lost"}))
    with Client(str(admin.base_url), API_KEY) as client:
        made = client.create_key(NewKey(name="laptop"))
        with pytest.raises(CalibrlError, match=f"revoke {made.id} and create another"):
            client.create_key(NewKey(name="laptop"))


def test_revoked_expired_and_inactive_keys_are_refused_from_then_on(admin: httpx.Client, users: ApiUsers) -> None:
    revoked, expired, inactive = (users.add(name, {}) for name in ("ann", "bob", "cem"))
    for key in (revoked, expired, inactive):
        assert users.get(key, "/v1/me").status_code == 200
    (row,) = admin.get("/v1/keys", params={"user": "ann"}).json()["data"]
    assert admin.delete(f"/v1/keys/{row['id']}").json()["revoked_at"] is not None
    run("UPDATE api_keys SET expires_at = now() WHERE \"user\" = 'bob'")
    assert admin.patch("/v1/users/cem", json={"active": False}).json()["active"] is False
    for key in (revoked, expired, inactive, "calibrl_" + "x" * 43, ""):
        refused(users.get(key, "/v1/me"), 401)


def test_no_key_outlives_the_one_that_made_it(admin: httpx.Client, users: ApiUsers) -> None:
    short = admin.post("/v1/keys", json={"name": "short", "expires_days": 1}).json()
    ends = short["expires_at"]
    for days, expected in ((None, ends), (30, ends)):
        made = users.post(short["key"], "/v1/keys", {"name": "child", "expires_days": days}).json()
        assert made["expires_at"] == expected
    sooner = users.post(short["key"], "/v1/keys", {"name": "child", "expires_days": 0.1}).json()
    assert sooner["expires_at"] < ends
    assert admin.post("/v1/keys", json={"name": "of an eternal one"}).json()["expires_at"] is None


def test_a_session_has_the_rights_of_its_key_and_ends_with_it(admin: httpx.Client, users: ApiUsers) -> None:
    users.add("ann", {"default": "viewer"})
    made = admin.post("/v1/keys", json={"name": "screen", "scope": "read", "user": "ann"}).json()
    first, second = (users.post(made["key"], "/v1/sessions").json()["token"] for _ in range(2))
    me = users.get(first, "/v1/me").json()
    assert (me["user"], me["scope"], me["key_id"]) == ("ann", "read", made["id"])
    refused(users.post(first, "/v1/keys", {"name": "more"}), 403)
    assert "begins with an API key" in refused(users.post(first, "/v1/sessions"), 403)["detail"]
    refused(users.delete(made["key"], "/v1/sessions/current"), 404)
    assert users.delete(first, "/v1/sessions/current").status_code == 204
    assert (users.get(first, "/v1/me").status_code, users.get(second, "/v1/me").status_code) == (401, 200)
    admin.delete(f"/v1/keys/{made['id']}")
    refused(users.get(second, "/v1/me"), 401)


def test_sessions_are_few_and_stored_as_hashes(admin: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.access.browser_sessions.MOST_SESSIONS", 2)
    tokens = [admin.post("/v1/sessions").json()["token"] for _ in range(3)]
    statuses = [admin.get("/v1/me", headers={"Authorization": f"Bearer {token}"}).status_code for token in tokens]
    assert statuses == [401, 200, 200]
    run("UPDATE browser_sessions SET expires_at = now()")
    newest = admin.post("/v1/sessions", headers={"Idempotency-Key": "one"}).json()["token"]
    assert run_count("SELECT count(*) FROM browser_sessions") == 1
    for table in ("browser_sessions", "idempotency_keys"):
        assert run_count(f"SELECT count(*) FROM {table} WHERE position('{newest}' in {table}::text) > 0") == 0


def test_no_file_is_read_for_who_does_not_see_the_project(users: ApiUsers, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_file(_: object) -> list[str]:
        raise AssertionError("a file was looked into")

    monkeypatch.setattr("jobs.specs.checks.file_problems", no_file)
    stranger = users.add("ann", {})
    for path in ("/v1/jobs", "/v1/jobs:plan"):
        assert named(users.post(stranger, path, {**TRAIN, "data": {"path": "/x.jsonl"}})) == ["project"]


def test_a_read_only_key_changes_nothing(admin: httpx.Client, users: ApiUsers) -> None:
    users.add("ann", {"default": "member"})
    key = admin.post("/v1/keys", json={"name": "screen", "scope": "read", "user": "ann"}).json()["key"]
    assert users.get(key, "/v1/jobs").status_code == 200
    assert "read-only" in refused(users.post(key, "/v1/jobs", {}), 403)["detail"]
    assert "read-only" in refused(users.post(key, "/v1/keys", {"name": "more"}), 403)["detail"]


def test_keys_of_others_are_for_admins(admin: httpx.Client, users: ApiUsers) -> None:
    ann, bob = users.add("ann", {}), users.add("bob", {})
    (of_bob,) = users.get(bob, "/v1/keys").json()["data"]
    refused(users.get(ann, "/v1/keys?user=bob"), 403)
    refused(users.post(ann, "/v1/keys", {"name": "his", "user": "bob"}), 403)
    refused(users.delete(ann, f"/v1/keys/{of_bob['id']}"), 404)
    assert users.delete(bob, f"/v1/keys/{of_bob['id']}").status_code == 200
    assert named(admin.post("/v1/keys", json={"name": "x", "user": "nobody"})) == ["user"]


def test_the_last_admin_stays_one(admin: httpx.Client) -> None:
    for change in ({"admin": False}, {"active": False}):
        assert "only active admin" in refused(admin.patch("/v1/users/admin", json=change), 409)["detail"]
    admin.post("/v1/users", json={"name": "root", "admin": True})
    assert admin.patch("/v1/users/admin", json={"admin": False}).json()["admin"] is False
    refused(admin.get("/v1/users"), 403)


def test_objects_of_another_project_are_not_found(admin: httpx.Client, users: ApiUsers) -> None:
    admin.put("/v1/projects/theirs", json={})
    ann = users.add("ann", {"default": "member"})
    mine, theirs = submitted(admin), submitted(admin, project="theirs")
    assert [job["id"] for job in users.get(ann, "/v1/jobs").json()["data"]] == [mine["id"]]
    assert users.get(ann, "/v1/jobs?project=theirs").json()["data"] == []
    assert [entry["job_id"] for entry in users.get(ann, "/v1/queue").json()["data"]] == [mine["id"]]
    assert [project["slug"] for project in users.get(ann, "/v1/projects").json()["data"]] == ["default"]
    spec = mine["spec"] | {"depends_on": [theirs["id"]]}
    assert named(users.post(ann, "/v1/jobs", spec)) == ["depends_on.0"]
    spec = mine["spec"] | {"model": {"from_job": theirs["id"]}}
    assert named(users.post(ann, "/v1/jobs", spec)) == ["model.from_job"]
    assert named(users.post(ann, "/v1/jobs", mine["spec"] | {"project": "theirs"})) == ["project"]
    assert named(users.get(ann, f"/v1/jobs?after={theirs['id']}")) == ["after"]


def test_changes_are_in_the_audit_log_and_refused_ones_are_not(admin: httpx.Client, users: ApiUsers) -> None:
    ann = users.add("ann", {"default": "member"})
    job = users.post(ann, "/v1/jobs", submitted(admin)["spec"]).json()
    answer = users.post(ann, f"/v1/jobs/{job['id']}/cancel")
    refused(users.post(ann, f"/v1/jobs/{job['id']}/cancel"), 409)
    (entry, *_) = admin.get("/v1/audit", params={"user": "ann"}).json()["data"]
    assert (entry["action"], entry["path"]) == ("POST /v1/jobs/{job_id}/cancel", f"/v1/jobs/{job['id']}/cancel")
    assert (entry["project"], entry["request_id"]) == ("default", answer.headers["x-request-id"])
    assert len(admin.get("/v1/audit", params={"user": "ann"}).json()["data"]) == 2  # submitted, cancelled
    refused(users.get(ann, "/v1/audit"), 403)
    refused(users.get(ann, "/v1/audit?project=default"), 403)


def test_asking_too_often(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIBRL_REQUESTS_PER_SECOND", "0.01")
    monkeypatch.setenv("CALIBRL_REQUESTS_AT_ONCE", "3")
    get_settings.cache_clear()
    with serving() as client:
        answers = [client.get("/v1/me") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert int(answers[-1].headers["retry-after"]) > 50


def test_guessing_keys_is_slowed_down(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "STRANGERS_PER_SECOND", 1e-6)  # a slow machine asks less often than that refills
    with serving() as admin:
        assert admin.get("/v1/me").status_code == 200
        guesses = [{"Authorization": f"Bearer guess-{number}"} for number in range(51)]
        answers = [admin.get("/v1/me", headers=guess).status_code for guess in guesses]
        assert answers == [401] * 50 + [429]
        assert admin.get("/v1/me").status_code == 200  # a key that was valid before is not held up


def test_strangers_are_counted_before_their_keys_are_looked_up(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "STRANGERS_PER_SECOND", 1e-6)
    looked_up: list[str] = []

    def counted(key: str, request_id: str) -> None:
        looked_up.append(key)

    monkeypatch.setattr(middleware, "_caller", counted)
    with serving() as client:
        for number in range(60):
            client.get("/v1/me", headers={"Authorization": f"Bearer guess-{number}"})
    assert len(looked_up) == 50


def test_the_keys_of_a_user_share_one_limit(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIBRL_REQUESTS_PER_SECOND", "0.01")
    monkeypatch.setenv("CALIBRL_REQUESTS_AT_ONCE", "3")
    get_settings.cache_clear()
    with serving() as client:
        second = client.post("/v1/keys", json={"name": "second"}).json()["key"]
        answers = [client.get("/v1/me", headers={"Authorization": f"Bearer {second}"}).status_code for _ in range(3)]
    assert answers == [200, 200, 429]


def test_a_user_has_a_bounded_number_of_valid_keys(admin: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "MOST_KEYS", 3)
    have = len(admin.get("/v1/keys").json()["data"])
    made = [admin.post("/v1/keys", json={"name": "one more"}) for _ in range(4 - have)]
    assert "revoke one first" in refused(made[-1], 409)["detail"]
    admin.delete(f"/v1/keys/{made[0].json()['id']}")
    assert admin.post("/v1/keys", json={"name": "one more"}).status_code == 201


def test_the_services_own_key_can_be_replaced_and_revoked(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as client:
        me = client.get("/v1/me").json()
        assert UUID(me.pop("key_id")) and me == {"user": "admin", "admin": True, "scope": "write", "projects": {}}
    monkeypatch.setenv("CALIBRL_API_KEY", "another-key-of-32-characters-long")
    get_settings.cache_clear()
    with serving() as client:
        (new, old) = client.get("/v1/keys").json()["data"]
        noted = [each for each in client.get("/v1/audit").json()["data"] if each["action"] == "keep the service's key"]
        assert [each["key_id"] for each in noted] == [new["id"], old["id"]] and all(e["request_id"] for e in noted)
        assert new["revoked_at"] is None and old["revoked_at"] is not None
        refused(client.get("/v1/me", headers={"Authorization": f"Bearer {API_KEY}"}), 401)
        assert client.delete(f"/v1/keys/{new['id']}").status_code == 200
        refused(client.get("/v1/me"), 401)


def test_the_command_line_creates_the_first_admin(admin: httpx.Client, users: ApiUsers) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "jobs.access.first_admin", "ada"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert made.returncode == 0, made.stderr
    assert users.get(made.stdout.strip(), "/v1/me").json()["user"] == "ada"
    (entry,) = admin.get("/v1/audit", params={"user": "ada"}).json()["data"]
    (key,) = users.get(made.stdout.strip(), "/v1/keys").json()["data"]
    assert (entry["action"], entry["key_id"]) == ("python -m jobs.access.first_admin", key["id"])
    wrong = subprocess.run(
        [sys.executable, "-m", "jobs.access.first_admin", "A da"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert wrong.returncode == 2 and "name:" in wrong.stderr


def test_every_answer_is_inert_in_a_browser(admin: httpx.Client) -> None:
    for path in ("/v1/jobs", "/healthz", "/v1/nothing"):
        headers = admin.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "access-control-allow-origin" not in admin.get(path, headers={"Origin": "https://evil.example"}).headers


def entries(admin: httpx.Client, **filters: str) -> list[dict[str, Any]]:
    """The audit log, newest first."""
    found: list[dict[str, Any]] = admin.get("/v1/audit", params=filters).json()["data"]
    return found


def test_the_audit_log_says_what_a_change_changed(admin: httpx.Client, users: ApiUsers) -> None:
    users.add("ann", {"default": "viewer"})
    admin.put("/v1/projects/default/members/ann", json={"role": "member"})
    admin.patch("/v1/users/ann", json={"admin": True})
    admin.put("/v1/projects/default", json={"weight": 2})
    job = submitted(admin)["id"]
    admin.patch(f"/v1/jobs/{job}", json={"notes": "mine"})
    admin.delete("/v1/users/ann")
    found = [(each["object"], each["before"], each["after"]) for each in entries(admin)]
    removed, edited, added, limits, promoted, member = found[:6]
    assert (removed[0], removed[1]["admin"], removed[2]) == ("ann", True, None)
    assert edited == (job, {"notes": ""}, {"notes": "mine"}) and added == (job, None, None)
    assert limits == ("default", {"weight": 1.0}, {"weight": 2.0})
    assert promoted == ("ann", {"admin": False}, {"admin": True})
    assert member == ("ann", {"role": "viewer"}, {"role": "member"})


def test_the_audit_log_names_what_was_created(admin: httpx.Client) -> None:
    data = admin.post("/v1/datasets", json={"name": "d", "hub": "a/b"}).json()["id"]
    row, query = b'{"question": "1 + 2?", "answer": "3"}\n', {"name": "rows", "project": "default"}
    uploaded = admin.post("/v1/datasets/upload", content=row, params=query).json()["id"]
    jobs = [job["id"] for job in admin.post("/v1/pipelines", json={"jobs": [TRAIN]}).json()["data"]]
    found = [(each["object"], each["after"]) for each in entries(admin)][:3]
    assert found == [(jobs[0], {"jobs": jobs}), (uploaded, None), (data, None)]


def test_no_secret_is_in_the_audit_log(admin: httpx.Client) -> None:
    made = admin.post("/v1/keys", json={"name": "laptop"}).json()
    token = admin.post("/v1/sessions").json()["token"]
    (sign_in, created, *_) = entries(admin)
    assert sign_in["action"] == "POST /v1/sessions" and created["object"] == made["id"]
    assert created["after"]["name"] == "laptop" and created["before"] is None
    assert not any(secret in admin.get("/v1/audit").text for secret in (made["key"], token))


def test_a_key_can_be_revoked_with_the_keys_that_it_made(admin: httpx.Client, users: ApiUsers) -> None:
    root = users.add("ann", {}, admin=True)
    (first,) = admin.get("/v1/keys", params={"user": "ann"}).json()["data"]
    child = users.post(root, "/v1/keys", {"name": "child"}).json()
    other = users.post(child["key"], "/v1/keys", {"name": "of another", "user": "admin"}).json()
    token = users.post(child["key"], "/v1/sessions").json()["token"]
    assert named(users.post(token, "/v1/keys", {"name": "without an end"})) == ["expires_days"]
    by_session = users.post(token, "/v1/keys", {"name": "made in the browser", "expires_days": 1}).json()
    assert (child["made_by"], other["made_by"], by_session["made_by"]) == (first["id"], child["id"], child["id"])
    admin.delete(f"/v1/keys/{first['id']}", params={"descendants": "true"})
    for key in (root, child["key"], other["key"], by_session["key"], token):
        refused(users.get(key, "/v1/me"), 401)
    (entry, *_) = [each for each in entries(admin) if each["action"].startswith("DELETE")]
    assert entry["after"]["descendants"] == sorted([child["id"], other["id"], by_session["id"]])
    assert entry["before"] == {"revoked_at": None}


def test_only_admins_revoke_descendants_of_others(admin: httpx.Client, users: ApiUsers) -> None:
    root = users.add("ann", {}, admin=True)
    (first,) = admin.get("/v1/keys", params={"user": "ann"}).json()["data"]
    of_admin = users.post(root, "/v1/keys", {"name": "of another", "user": "admin"}).json()
    admin.patch("/v1/users/ann", json={"admin": False})
    assert users.delete(root, f"/v1/keys/{first['id']}?descendants=true").status_code == 200
    assert users.get(of_admin["key"], "/v1/me").status_code == 200


def test_refused_keys_are_noted_within_limits(admin: httpx.Client, users: ApiUsers) -> None:
    ann = users.add("ann", {})
    (row,) = admin.get("/v1/keys", params={"user": "ann"}).json()["data"]
    admin.delete(f"/v1/keys/{row['id']}")
    for key in (ann, ann, "calibrl_guessed-by-a-stranger", "calibrl-session-unknown", ""):
        refused(users.get(key, "/v1/me"), 401)
    guessed, revoked = (each for each in entries(admin) if each["action"] == "refuse a key")
    assert (revoked["user"], revoked["key_id"], revoked["path"]) == ("ann", row["id"], "/v1/me")
    assert (guessed["user"], guessed["object"], guessed["after"]) == ("", "calibrl_guesse", {"address": "127.0.0.1"})


def test_notes_of_refused_keys_are_bounded(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "NOTED_AT_ONCE", 2)
    monkeypatch.setattr(middleware, "NOTED_PER_SECOND", 1e-6)
    with serving() as admin:
        for number in range(5):
            admin.get(f"/v1/{'x' * 5000}", headers={"Authorization": f"Bearer guess-{number}"})
        noted = [each for each in entries(admin) if each["action"] == "refuse a key"]
        assert [len(each["path"]) for each in noted] == [200, 200]


def test_old_entries_of_the_audit_log_are_removed(admin: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    admin.put("/v1/projects/default", json={"weight": 2})
    run("UPDATE audit SET ts = now() - interval '731 days'")
    admin.put("/v1/projects/default", json={"weight": 3})
    with session_scope() as session:
        sweep(session)
    assert [each["after"] for each in entries(admin)] == [{"weight": 3.0}]


def test_the_audit_log_is_exported_from_any_entry_on(
    admin: httpx.Client, users: ApiUsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "ENTRIES_AT_ONCE", 2)
    member, lead = users.add("ann", {"default": "member"}), users.add("bob", {"default": "admin"})
    run("UPDATE audit SET ts = now() - interval '121 seconds' WHERE id > (SELECT min(id) FROM audit)")
    assert admin.get("/v1/audit/export").text == ""  # an older transaction could still add to the entries
    run("UPDATE audit SET ts = now() - interval '121 seconds'")
    whole = [json.loads(line) for line in admin.get("/v1/audit/export").text.splitlines()]
    rest = admin.get("/v1/audit/export", params={"after": whole[2]["id"]}).text.splitlines()
    assert whole == entries(admin)[::-1] and [json.loads(line) for line in rest] == whole[3:] and len(whole) > 4
    of_project = users.get(lead, "/v1/audit/export?project=default").text.splitlines()
    assert {json.loads(line)["project"] for line in of_project} == {"default"}
    refused(users.get(lead, "/v1/audit/export"), 403)
    refused(users.get(member, "/v1/audit/export?project=default"), 403)
