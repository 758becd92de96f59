"""At least 150 hostile inputs are refused, as documented, and change nothing; hostile text stays text."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from calibrl.schemas import JobStatus
from jobs.db import session_scope
from jobs.repository import samples
from jobs.settings import get_settings
from tests.support import hostile
from tests.support.api_users import ApiUsers
from tests.support.hostile import JSON, REFUSED, Attack
from tests.support.job_steps import claim, finish, machine, nothing_to_claim, run
from tests.support.rest import refused, serving, submitted

pytestmark = pytest.mark.integration
SECRET = "the-secret-of-the-server"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e\u0000=cmd|' /C calc'!A0"


@dataclass
class Stage:
    users: ApiUsers
    key: str
    names: dict[str, str]
    admin: httpx.Client
    root: Path

    def count(self) -> int:
        return len(self.admin.get("/v1/jobs?limit=1000").json()["data"])


@pytest.fixture
def stage(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    allowed, elsewhere = tmp_path / "allowed", tmp_path / "elsewhere"
    allowed.mkdir()
    elsewhere.mkdir()
    (elsewhere / "secret.jsonl").write_text(f'{{"question": "{SECRET}", "answer": "1"}}\n')
    (allowed / "link").symlink_to(elsewhere)
    monkeypatch.setenv("CALIBRL_ALLOWED_ROOTS", str(allowed))
    get_settings.cache_clear()
    with serving() as admin, ApiUsers(admin) as users:
        for project in ("mine", "theirs"):
            admin.put(f"/v1/projects/{project}", json={})
        machine("w")
        names = {
            "job": submitted(admin, project="mine")["id"],
            "other": submitted(admin, project="theirs")["id"],
            "link": str(allowed / "link"),
            "revoked": f"Bearer {users.add('revoked', {})}",
            "expired": f"Bearer {users.add('expired', {})}",
        }
        run("UPDATE api_keys SET revoked_at = now() WHERE \"user\" = 'revoked'")
        run("UPDATE api_keys SET expires_at = now() WHERE \"user\" = 'expired'")
        yield Stage(users, users.add("mallory", {"mine": "member"}), names, admin, allowed)


def filled(text: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def asked(stage: Stage, attack: Attack) -> httpx.Response:
    headers = {name: filled(value, stage.names) for name, value in attack.headers.items()}
    body = attack.body
    if body is not None and len(body) < 10_000:
        for name, value in stage.names.items():
            body = body.replace(f"{{{name}}}".encode(), value.encode())
    headers = {"Authorization": f"Bearer {stage.key}"} | headers
    return stage.users.send(attack.method, filled(attack.path, stage.names), headers, body, attack.params)


def test_hostile_inputs_are_refused_and_change_nothing(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    before = stage.count()
    attacks = [attack for family in hostile.ALL for attack in family()]
    wrong = []
    for attack in attacks:
        try:
            answer = asked(stage, attack)
        except (httpx.LocalProtocolError, httpx.InvalidURL):
            continue  # no client can even send it
        expected = REFUSED | {200} if attack.harmless else REFUSED
        problem = answer.headers.get("content-type", "") == "application/problem+json"
        if answer.status_code not in expected or (answer.is_error and not problem) or SECRET in answer.text:
            wrong.append(f"{attack.name}: {answer.status_code} {answer.text[:150]}")
    assert not wrong, "\n".join(wrong)
    assert stage.count() == before
    with capsys.disabled():
        print(f" {len(attacks)} hostile inputs refused ", end="")
    assert len(attacks) >= 150


def test_hostile_completions_and_names_are_given_out_as_text(stage: Stage) -> None:
    with session_scope() as session:
        group = {
            "prompt_id": HOSTILE,
            "images": [],
            "prompt": HOSTILE,
            "completions": [{"text": HOSTILE, "passed": False, "reward": 0.0}],
        }
        samples.insert(session, UUID(stage.names["job"]), 1, group, 10**6, image_bytes=0)
    (summary,) = stage.admin.get(f"/v1/jobs/{stage.names['job']}/samples").json()["data"]
    for path in ("", f"/{summary['id']}"):
        answer = stage.admin.get(f"/v1/jobs/{stage.names['job']}/samples{path}")
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "\\u0000" not in answer.text  # what PostgreSQL can't keep is replaced


def test_a_header_can_not_write_into_the_log(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    evil = 'x", "level": "error", "event": "forged'
    headers = {"Authorization": f"Bearer {stage.key}", "X-Request-ID": evil, **JSON}
    answer = stage.users.send("GET", "/v1/jobs", headers, None, {})
    assert answer.headers["x-request-id"] != evil
    assert "forged" not in capfd.readouterr().err
    stage.users.send("GET", "/v1/jobs/%0a%7b%22event%22:%22forged%22%7d", headers, None, {})
    lines = [line for line in capfd.readouterr().err.splitlines() if "forged" in line]
    assert all('"event": "request"' in line for line in lines)


def test_keys_are_in_no_log_and_no_error(stage: Stage, capfd: pytest.CaptureFixture[str]) -> None:
    answer = stage.users.get(stage.key, "/v1/jobs/nonsense")
    assert stage.key not in answer.text
    stage.users.get(f"calibrl_{'k' * 43}", "/v1/jobs")
    logged = capfd.readouterr().err
    assert stage.key not in logged and "k" * 43 not in logged


def test_a_model_folder_with_a_link_out_is_refused_and_fails_at_claim(stage: Stage) -> None:
    """The folder lies in an allowed root; one of its files leads to a file that only the service may read."""
    model = stage.root / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    spec = {"kind": "train", "name": "x", "project": "mine", "data": {"builtin": "digits"}, "steps": 1}
    spec |= {"model": {"path": str(model)}, "depends_on": [stage.names["job"]]}
    accepted = stage.admin.post("/v1/jobs", json=spec)
    assert accepted.status_code == 201, accepted.text
    link = model / "chat_template.jinja"
    link.symlink_to(stage.root.parent / "elsewhere" / "secret.jsonl")
    refusal = refused(stage.admin.post("/v1/jobs", json=spec), 422)["errors"][0]
    assert refusal["field"] == "model.path" and f"{link} leads out of {stage.root}" in refusal["message"]
    refused(stage.admin.post("/v1/jobs:plan", json=spec), 422)
    finish(claim(), JobStatus.SUCCEEDED)  # what it depends on
    finish(claim(), JobStatus.SUCCEEDED)  # of the other project
    assert nothing_to_claim()
    found = stage.admin.get(f"/v1/jobs/{accepted.json()['id']}").json()
    assert (found["status"], found["reason"]) == ("failed", "bad_spec") and "leads out of" in found["message"]
