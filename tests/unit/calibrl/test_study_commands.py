"""The commands of studies over real HTTP: what they ask, print and refuse."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from calibrl.commands import studies
from tests.support.study_jobs import STUDY

from .conftest import JOB_ID, Service, calibrl, fault, page, problem

STUDY_PATH = f"/v1/studies/{JOB_ID}"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(studies, "POLL_SECONDS", 0.0)
    path = tmp_path / "slopes.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    return path


def study(status: str = "running", **progress: Any) -> dict[str, Any]:
    """A study as the API writes it."""
    shown = {"planned": 8, "succeeded": 0, "failed": 0, "running": 0, "waiting": 8, "slot_hours": 0.5}
    return {
        "id": str(JOB_ID),
        "name": "slopes",
        "project": "default",
        "user": "user",
        "status": status,
        "message": None,
        "progress": shown | {"seconds_left": None, "stopped": {}, "notes": []} | progress,
        "created_at": "2026-01-01T00:00:00Z",
        "finished_at": None,
        "spec": STUDY,
    }


def test_a_faulty_study_is_refused_before_any_request(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "slopes.yaml"
    path.write_text(yaml.safe_dump(STUDY | {"arms": {"a": {"optimiser.lr": 1}}}))
    line = fault(calibrl("study", "run", path), 2)
    assert "'optimiser.lr': a training spec has no field 'optimiser'; did you mean optimizer?" in line
    assert service.requests == []


def test_run_posts_the_study_and_follows_it(service: Service, file: Path) -> None:
    service.on("POST", "/v1/studies", study())
    service.on("GET", STUDY_PATH, study(running=8, waiting=0), study("succeeded", succeeded=8, waiting=0))
    ran = calibrl("study", "run", file)
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        "slopes: 0/8 jobs ended, 0 running, 8 waiting, 0 failed, 0.50 slot-hours, time left unknown until a job of "
        "each kind has ended",
        "slopes: 0/8 jobs ended, 8 running, 0 waiting, 0 failed, 0.50 slot-hours, time left unknown until a job of "
        "each kind has ended",
        "slopes: 8/8 jobs ended, 0 running, 0 waiting, 0 failed, 0.50 slot-hours, succeeded",
    ]
    assert service.requests[0].body == STUDY


def test_run_names_what_failed(service: Service, file: Path) -> None:
    failed = study("failed", failed=8, waiting=0, notes=[f"a failed: see `calibrl show {JOB_ID}`"])
    service.on("POST", "/v1/studies", failed | {"message": "a was refused."})
    ran = calibrl("study", "run", file)
    assert ran.exit_code == 1
    assert ran.stdout.splitlines()[1:] == ["a was refused.", f"a failed: see `calibrl show {JOB_ID}`"]


def test_run_survives_a_service_that_is_away(service: Service, file: Path) -> None:
    service.on("POST", "/v1/studies", study())
    service.on("GET", STUDY_PATH, None, None, None, study("succeeded"))
    ran = calibrl("study", "run", file)
    assert ran.exit_code == 0
    assert "trying again" in ran.stdout
    service.on("GET", STUDY_PATH, problem(403, "Forbidden"))
    refused = calibrl("study", "run", file)
    assert (refused.exit_code, refused.stderr) == (1, "calibrl: Forbidden\n")


def test_a_study_is_named_by_its_name_or_its_id(service: Service) -> None:
    service.on("GET", "/v1/studies", page(study()))
    service.on("GET", STUDY_PATH, study(seconds_left=7200.0))
    for name in ("slopes", JOB_ID):
        shown = calibrl("study", "status", name)
        assert (shown.exit_code, shown.stderr) == (0, "")
        assert shown.stdout.startswith("slopes: 0/8 jobs ended, 0 running, 8 waiting, 0 failed, 0.50 slot-hours, about")
    assert json.loads(calibrl("study", "status", "slopes", "--json").stdout)["progress"]["planned"] == 8
    assert service.requests[0].query == {"name": "slopes", "limit": "100"}
    service.on("GET", "/v1/studies", page())
    assert "there is no study 'slopes'" in fault(calibrl("study", "status", "slopes"), 2)
    service.on("GET", "/v1/studies", page(study(), study() | {"project": "vision"}))
    assert "projects default, vision have a study" in fault(calibrl("study", "cancel", "slopes"), 2)


def test_studies_are_listed_cancelled_and_removed(service: Service) -> None:
    service.on("GET", "/v1/studies", page(study(succeeded=3, failed=1)))
    assert "4/8" in calibrl("study", "list", "--project", "default").stdout
    service.on("POST", f"{STUDY_PATH}/cancel", study("cancelling"))
    assert calibrl("study", "cancel", JOB_ID).stdout == "slopes is cancelling\n"
    service.on("DELETE", STUDY_PATH, {})
    assert calibrl("study", "remove", JOB_ID).exit_code == 0


def test_a_file_that_is_no_run_is_refused_before_any_request(service: Service, file: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "a.seed-0.0.json.gz").write_bytes(b"no archive")
    line = fault(calibrl("study", "run", file, "--results", results), 2)
    assert "a.seed-0.0.json.gz: not a finished run of a study" in line and "remove the file" in line
    assert service.requests == []
