"""`calibrl hours` over real HTTP: a job and a project, as tables and as JSON."""

import json
from typing import Any

from .conftest import JOB_ID, JOB_PATH, Service, calibrl, fault, job, problem

BOUGHT = {"learning": 3.0, "no_advantage": 6.0, "restarts": 3.0}
HOURS: dict[str, Any] = {
    "job_id": str(JOB_ID),
    "name": "digits",
    "kind": "train",
    "status": "running",
    "slots": 2,
    "slot_hours": 12.0,
    "gpu_hours": 12.0,
    "bought": BOUGHT,
    "queued_hours": 0.5,
    "first_accuracy": 0.5,
    "best_accuracy": 0.74,
    "slot_hours_per_point": 0.5,
    "price": {"amount": 36.0, "currency": "EUR"},
}


def test_the_hours_of_a_job(service: Service) -> None:
    service.on("GET", JOB_PATH, job())
    service.on("GET", f"{JOB_PATH}/hours", HOURS)
    lines = [line.split() for line in calibrl("hours", str(JOB_ID)).stdout.splitlines()]
    assert lines[0] == ["digits:", "12.00", "slot-hours,", "12.00", "GPU-hours"]
    assert ["no", "advantage", "6.00", "50%"] in [[*line[:3], *line[4:]] for line in lines]
    assert ["validation", "50.0%", "first,", "74.0%", "best"] in lines
    assert ["price", "36.00", "EUR"] in lines
    assert json.loads(calibrl("hours", str(JOB_ID), "--json").stdout)["bought"]["restarts"] == 3.0
    service.on("GET", f"{JOB_PATH}/hours", problem(409, "Conflict", detail="Job 1 has not started."))
    assert "has not started" in fault(calibrl("hours", str(JOB_ID)), 1)


def test_the_hours_of_a_project(service: Service) -> None:
    sums = {"jobs": 1, "slot_hours": 12.0, "gpu_hours": 12.0, "bought": BOUGHT, "lost_slot_hours": 2.0, "price": None}
    service.on("GET", "/v1/projects/vision/hours", {"project": "vision", "days": 7, **sums, "most": [HOURS]})
    lines = calibrl("hours", "--project", "vision", "--days", "7").stdout.splitlines()
    assert service.requests[-1].query == {"days": "7"}
    assert lines[0].startswith("vision, last 7 days: 1 jobs, 12.00 slot-hours (2.00 of failed or cancelled jobs)")
    assert lines[-1].split() == [str(JOB_ID)[:8], "digits", "running", "12.00", "50%", "25%", "0.5", "36.00", "EUR"]
    assert calibrl("hours", "--days", "0").exit_code == 2
