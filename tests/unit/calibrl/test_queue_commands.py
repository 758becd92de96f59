"""The queue's commands over real HTTP: what they send and print, as tables and as JSON."""

import json
from typing import Any

import pytest

from .conftest import JOB_ID, JOB_PATH, OTHER_ID, Service, calibrl, entry, fault, job, machine, page, problem, project


@pytest.mark.parametrize(
    ("command", "status"),
    [("cancel", "cancelling"), ("pause", "pausing"), ("resume", "queued"), ("retry", "queued")],
)
def test_actions_on_a_job_print_its_status(service: Service, command: str, status: str) -> None:
    service.on("GET", JOB_PATH, job())
    service.on("POST", f"{JOB_PATH}/{command}", job(status=status))
    result = calibrl(command, str(JOB_ID))
    assert (result.exit_code, result.stdout) == (0, f"{JOB_ID} digits: {status}, step 3/10\n")
    assert json.loads(calibrl(command, str(JOB_ID), "--json").stdout)["status"] == status


def test_a_refusal_is_one_line(service: Service) -> None:
    service.on("GET", JOB_PATH, job(status="succeeded"))
    service.on("POST", f"{JOB_PATH}/resume", problem(409, "Conflict", detail="Job 1 has already ended."))
    assert fault(calibrl("resume", str(JOB_ID)), 1) == "calibrl: Conflict: Job 1 has already ended.\n"


def test_another_priority(service: Service) -> None:
    service.on("GET", JOB_PATH, job())
    service.on("PATCH", JOB_PATH, job(priority="high"))
    assert calibrl("priority", str(JOB_ID), "high").exit_code == 0
    assert service.requests[-1].body == {"priority": "high"}
    assert "'urgent' is not one of 'low', 'normal', 'high'" in fault(calibrl("priority", str(JOB_ID), "urgent"), 2)


def test_the_queue_as_a_table_and_as_json(service: Service) -> None:
    held = entry(OTHER_ID, status="paused", position=None, reason="paused", explanation="is paused")
    service.on("GET", "/v1/queue", page(entry(), held))
    lines = calibrl("queue").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["POS", "1", "–"]
    assert "waiting for a free CPU slot" in lines[1]
    found = json.loads(calibrl("queue", "--project", "vision", "--json").stdout)
    assert [(one["position"], one["reason"]) for one in found] == [(1, "busy"), (None, "paused")]
    assert service.requests[-1].query == {"project": "vision"}
    service.on("GET", "/v1/queue", page())
    assert calibrl("queue").stdout == "No job is waiting.\n"


def test_machines_are_listed_drained_and_undrained(service: Service) -> None:
    service.on("GET", "/v1/workers", page(machine()))
    assert "GPU 0 H100" in calibrl("workers").stdout
    assert json.loads(calibrl("workers", "--json").stdout)[0]["gpus"][0]["utilisation"] == 50.0
    service.on("POST", "/v1/workers/gpu-1/drain", machine(status="draining"))
    service.on("POST", "/v1/workers/gpu-1/undrain", machine())
    assert calibrl("drain", "gpu-1").stdout == "gpu-1: draining, runs 2 jobs\n"
    assert service.requests[-1].body == {"now": False}
    assert calibrl("drain", "gpu-1", "--now").exit_code == 0
    assert service.requests[-1].body == {"now": True}
    assert calibrl("undrain", "gpu-1").stdout == "gpu-1: online, runs 2 jobs\n"
    service.on("POST", "/v1/workers/nobody/drain", problem(404, "Not found", detail="There is no worker nobody."))
    assert "There is no worker nobody." in fault(calibrl("drain", "nobody"), 2)


def test_a_project_keeps_fields_that_are_not_given(service: Service) -> None:
    service.on("GET", "/v1/projects/vision", project(max_gpus=4, retention_days=30))
    service.on("PUT", "/v1/projects/vision", project(weight=2.0, retention_days=30))
    result = calibrl("projects", "set", "vision", "--weight", "2", "--max-gpus", "none", "--budget-hours", "0.5")
    assert (result.exit_code, result.stdout.splitlines()[1].split()[:2]) == (0, ["vision", "2"])
    assert service.requests[-1].body == {
        "weight": 2.0,
        "max_gpus": None,
        "max_queued": None,
        "max_priority": None,
        "max_run_hours": None,
        "budget_slot_hours": 0.5,
        "user_budget_slot_hours": None,
        "retention_days": 30,
    }


def test_limits_of_a_misspelt_project_are_refused(service: Service) -> None:
    service.on("GET", "/v1/projects/new", problem(404, "Not found", detail="There is no project new."))
    assert "There is no project new" in fault(calibrl("projects", "set", "new", "--max-queued", "3"), 2)
    assert [request.method for request in service.requests] == ["GET"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["projects", "nope"], "No such command 'nope'"),
        (["projects", "set"], "Missing argument 'SLUG'"),
        (["projects", "set", "x", "--max-gpus", "many"], "'many' is not a number or `none`"),
        (["projects", "set", "x", "--max-gpus", "nan"], "'nan' is not a number or `none`"),
        (["projects", "--json", "set", "x"], "put options after `set`"),
    ],
)
def test_bad_usage_of_projects_is_one_line(service: Service, arguments: list[str], says: str) -> None:
    assert says in fault(calibrl(*arguments), 2)
    assert service.requests == []


def test_a_limit_that_the_service_refuses_is_bad_input(service: Service) -> None:
    service.on("GET", "/v1/projects/vision", project())
    errors = [{"field": "max_gpus", "message": "Must be at least 0"}]
    service.on("PUT", "/v1/projects/vision", problem(422, "Invalid request", errors=errors))
    refused = fault(calibrl("projects", "set", "vision", "--max-gpus", "-1"), 2)
    assert refused == "calibrl: Invalid request: max_gpus: Must be at least 0\n"


def test_projects_and_usage_as_tables_and_as_json(service: Service) -> None:
    used: dict[str, Any] = {"project": "vision", "user": "ann", "slot_hours": 1.5, "gpu_hours": 0}
    service.on("GET", "/v1/projects", page(project()))
    service.on(
        "GET", "/v1/usage", page(used | {"budget_slot_hours": 10}), page(used | {"budget_slot_hours": 10}), page()
    )
    assert calibrl("projects").stdout.splitlines()[1].split()[0] == "vision"
    assert json.loads(calibrl("projects", "--json").stdout)[0]["slug"] == "vision"
    assert calibrl("usage").stdout.splitlines()[1].split() == ["vision", "ann", "1.50", "0.00", "10"]
    assert json.loads(calibrl("usage", "--json").stdout)[0]["slot_hours"] == 1.5
    assert calibrl("usage").stdout == "No slot-hours were used this month.\n"
