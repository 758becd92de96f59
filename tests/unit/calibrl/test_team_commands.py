"""Commands for the team and for what jobs report, over real HTTP: webhooks, audit log, events, metrics, removal."""

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import JOB_ID, JOB_PATH, KEY, Service, calibrl, fault, job, machine, page, problem, project

HOOKS = "/v1/projects/vision/webhooks"
HOOK_ID = "33333333-0000-0000-0000-000000000000"
TIME = "2026-01-01T00:00:00Z"


def hook(**changes: Any) -> dict[str, Any]:
    about = {
        "id": HOOK_ID,
        "project": "vision",
        "url": "https://a.example",
        "format": "standard",
        "events": ["job.failed"],
    }
    return about | {"created_by": "ada", "created_at": TIME} | changes


def test_webhooks_are_added_listed_tried_and_removed(service: Service) -> None:
    service.on("POST", HOOKS, (201, hook(secret="whsec_x")))
    options = ("--project", "vision")
    added = calibrl("webhooks", "add", "https://a.example", "--event", "job.failed", *options)
    assert (added.exit_code, added.stdout) == (0, "whsec_x\n")
    assert service.requests[-1].body == {"url": "https://a.example", "format": "standard", "events": ["job.failed"]}
    refused = calibrl("webhooks", "add", "ftp://a", "--event", "job.lost", *options)
    assert refused.exit_code == 2 and refused.stderr.startswith("calibrl: Invalid request:\n  url: ")
    service.on("GET", HOOKS, page(hook()))
    assert "https://a.example" in calibrl("webhooks", "list", *options).stdout
    message = {"id": HOOK_ID, "type": "ping", "job_id": None, "status": "pending", "attempts": 1}
    message |= {"response": "500", "next_at": TIME, "created_at": TIME}
    service.on("POST", f"{HOOKS}/{HOOK_ID}/ping", (202, message))
    assert calibrl("webhooks", "ping", "3333", *options).stdout == f"message {HOOK_ID} is pending\n"
    service.on("GET", f"{HOOKS}/{HOOK_ID}/deliveries", page(message))
    assert "pending" in calibrl("webhooks", "deliveries", "3333", *options).stdout
    service.on("DELETE", f"{HOOKS}/{HOOK_ID}", (204, b""))
    assert calibrl("webhooks", "remove", "3333", *options).exit_code == 0
    assert "no webhook has an id that begins with '4'" in fault(calibrl("webhooks", "remove", "4", *options), 2)


def test_the_audit_log_is_filtered(service: Service) -> None:
    entry = {"id": 1, "ts": TIME, "user": "ada", "key_id": None, "action": "POST /v1/jobs", "path": "/v1/jobs"}
    service.on("GET", "/v1/audit", page(entry | {"project": "vision", "request_id": "r"}))
    shown = calibrl("audit-log", "--project", "vision", "--user", "ada", "--limit", "5").stdout
    assert "POST /v1/jobs" in shown
    assert service.requests[-1].query == {"project": "vision", "user": "ada", "limit": "5"}
    assert calibrl("audit-log", "--action", "DELETE", "--since", "2026-11-24T18:00+00:00").exit_code == 0
    expected = {"action": "DELETE", "created_after": "2026-11-24T18:00:00+00:00", "limit": "100"}
    assert service.requests[-1].query == expected
    service.on("GET", "/v1/users", page())
    assert calibrl("users", "list", "-q", "an", "--inactive").exit_code == 0
    assert service.requests[-1].query == {"q": "an", "active": "false", "limit": "1000"}
    service.on("GET", "/v1/keys", page())
    assert calibrl("keys", "list", "--valid").exit_code == 0
    assert service.requests[-1].query == {"valid": "true"}


def test_events_notes_and_origin_of_a_job(service: Service) -> None:
    happened = {"id": 1, "ts": TIME, "type": "started", "status": "running", "reason": None, "actor": "w"}
    service.on("GET", JOB_PATH, job(notes="the run of the paper", forked_from=HOOK_ID, forked_step=40))
    service.on("GET", f"{JOB_PATH}/events", page(happened | {"message": "attempt 1"}))
    service.on("GET", f"{JOB_PATH}/checkpoints", page())
    assert "started attempt 1" in calibrl("events", str(JOB_ID)).stdout
    shown = calibrl("show", str(JOB_ID)).stdout
    assert "the run of the paper" in shown and f"{HOOK_ID}, step 40" in shown
    whole = json.loads(calibrl("show", str(JOB_ID), "--json").stdout)
    assert (whole["notes"], len(whole["events"]), whole["checkpoints"]) == ("the run of the paper", 1, [])


def test_metrics_of_a_job_and_the_end_of_its_log(service: Service) -> None:
    values = [
        {"name": "reward/mean", "last_step": 3, "last": 0.5},
        {"name": "loss/total", "last_step": 3, "last": None},
    ]
    service.on("GET", JOB_PATH, job())
    service.on("GET", f"{JOB_PATH}/metrics/names", page(*values))
    assert calibrl("metrics", "--job", str(JOB_ID)).stdout.splitlines()[1].split()[:2] == ["reward/mean", "0.5"]
    assert "reward" not in calibrl("metrics", "loss/", "--job", str(JOB_ID)).stdout
    service.on("GET", f"{JOB_PATH}/log", {"text": "a\nb\nc\n", "next": 6}, {"text": "", "next": 6})
    assert calibrl("logs", str(JOB_ID), "--tail", "2").stdout == "b\nc\n"


def test_jobs_users_machines_and_projects_are_removed(service: Service) -> None:
    service.on("GET", JOB_PATH, job(status="failed"))
    for path in (JOB_PATH, "/v1/users/ada", "/v1/workers/gpu-1", "/v1/projects/vision"):
        service.on("DELETE", path, (204, b""))
    assert calibrl("remove", str(JOB_ID)).stdout == f"removed {JOB_ID} digits\n"
    assert calibrl("users", "remove", "ada").stdout == "removed ada\n"
    assert calibrl("workers", "remove", "gpu-1").stdout == "removed gpu-1\n"
    assert calibrl("projects", "remove", "vision").stdout == "removed vision\n"
    service.on("DELETE", JOB_PATH, problem(409, "Conflict", detail="Job is running: cancel it first."))
    assert "cancel it first" in fault(calibrl("remove", str(JOB_ID)), 1)
    service.on("GET", "/v1/workers", page(machine()))
    assert "gpu-1" in calibrl("workers").stdout
    assert "put options after `remove`" in fault(calibrl("workers", "--json", "remove", "x"), 2)


def test_the_page_of_a_job_is_known_of_a_local_stack_only(service: Service) -> None:
    service.on("GET", JOB_PATH, job())
    assert "known of a local stack only" in fault(calibrl("open", str(JOB_ID)), 1)


def test_commands_of_the_local_stack_without_one(service: Service, tmp_path: Path) -> None:
    stopped = calibrl("status", "--data", tmp_path)
    assert (stopped.exit_code, stopped.stdout) == (1, f"No service runs on {tmp_path}.\n")
    assert calibrl("down", "--data", tmp_path).stdout == stopped.stdout
    variables = f"export CALIBRL_API_URL={service.url}\nexport CALIBRL_API_KEY={KEY}\n"
    assert calibrl("env").stdout == variables
    assert "no service runs on" in fault(calibrl("env", "--worker", "--data", tmp_path), 1)


def test_a_project_is_added_only_once(service: Service) -> None:
    service.on("PUT", "/v1/projects/new", (200, project(slug="new")), problem(412, "Changed meanwhile"))
    assert calibrl("projects", "add", "new").exit_code == 0
    assert service.requests[-1].headers["If-None-Match"] == "*"
    assert "Changed meanwhile" in fault(calibrl("projects", "add", "new"), 1)


def test_limits_are_changed_from_the_state_that_was_read(service: Service) -> None:
    first, second = project(), project(weight=3.0)
    service.on("GET", "/v1/projects/vision", (200, first, {"ETag": '"a"'}), (200, second, {"ETag": '"b"'}))
    service.on("PUT", "/v1/projects/vision", problem(412, "Changed meanwhile"), project(weight=3.0, max_gpus=4))
    assert calibrl("projects", "set", "vision", "--max-gpus", "4").exit_code == 0
    puts = [request for request in service.requests if request.method == "PUT"]
    assert [request.headers["If-Match"] for request in puts] == ['"a"', '"b"']
    assert (puts[-1].body["weight"], puts[-1].body["max_gpus"]) == (3.0, 4)


def test_an_export_goes_to_standard_output(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    service.on("GET", JOB_PATH, job())
    service.on("GET", f"{JOB_PATH}/metrics", (200, b"step,loss\n1,2\n"))
    assert calibrl("export", "csv", str(JOB_ID), "-").stdout == "step,loss\n1,2\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["optimizer-00001.safetensors", "trainer.json"])
def test_a_download_can_leave_out_the_state_of_the_optimizer(service: Service, tmp_path: Path, name: str) -> None:
    files = [{"name": one, "bytes": 4, "etag": "e"} for one in ("model.safetensors", name)]
    checkpoint = {"step": 5, "path": "/p", "best": True, "metrics": {}, "created_at": TIME, "files": files}
    service.on("GET", JOB_PATH, job())
    service.on("GET", f"{JOB_PATH}/checkpoints/5", checkpoint)
    service.on("GET", f"{JOB_PATH}/checkpoints/5/files/model.safetensors", (206, b"1234"))
    done = calibrl("download", str(JOB_ID), tmp_path, "--step", "5", "--model-only", "--json")
    assert json.loads(done.stdout) == [str(tmp_path / "model.safetensors")]


RULES = "/v1/alert-rules"


def alert_rule(**changes: Any) -> dict[str, Any]:
    condition = {"type": "below", "metric": "exploration/entropy", "limit": 0.05, "steps": 20}
    about = {"id": HOOK_ID, "project": "vision", "name": "low", "condition": condition, "labels": {"team": "a"}}
    return about | {"job_names": "sweep-*", "created_by": "ada", "created_at": TIME} | changes


def test_alert_rules_are_added_listed_changed_and_removed(service: Service) -> None:
    options = ("--project", "vision")
    service.on("POST", RULES, (201, alert_rule()))
    condition = ("--metric", "exploration/entropy", "--below", "0.05", "--steps", "20")
    added = calibrl("alerts", "add", "low", *condition, "--label", "team=a", "--jobs", "sweep-*", *options)
    assert "exploration/entropy below 0.05 for 20 values in a row" in added.stdout
    sent = alert_rule()
    assert service.requests[-1].body == {
        field: sent[field] for field in ("project", "name", "condition", "labels", "job_names")
    }
    service.on("GET", RULES, page(alert_rule()))
    assert "sweep-* team=a" in calibrl("alerts", "list", *options).stdout
    stuck = {"type": "no_progress", "minutes": 30}
    service.on("PUT", f"{RULES}/{HOOK_ID}", alert_rule(condition=stuck))
    assert "no step for 30 minutes" in calibrl("alerts", "set", "low", "--no-progress", "30", *options).stdout
    assert service.requests[-1].body == {"condition": stuck, "labels": {}, "job_names": None}
    service.on("DELETE", f"{RULES}/{HOOK_ID}", (204, b""))
    assert calibrl("alerts", "remove", "low", *options).exit_code == 0
    assert "project vision has no alert rule 'high'" in fault(calibrl("alerts", "remove", "high", *options), 2)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((), "give one of --below"),
        (("--below", "1", "--no-progress", "3"), "give one of --below"),
        (("--below", "1"), "--metric is missing"),
        (("--no-progress", "3", "--steps", "2"), "steps"),
        (("--no-progress", "3", "--label", "team"), "write it as key=value"),
    ],
)
def test_an_alert_rule_needs_one_condition(service: Service, given: tuple[str, ...], says: str) -> None:
    refused = calibrl("alerts", "add", "low", *given)
    assert refused.exit_code == 2 and says in refused.stderr
    assert not service.requests
