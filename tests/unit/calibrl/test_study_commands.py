"""The commands of studies over real HTTP: what they ask, print and refuse."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from calibrl import extras
from calibrl.commands import studies
from calibrl.schemas import StudySpec
from calibrl.studies.expansion import expand
from tests.support.study_jobs import STUDY

from .conftest import JOB_ID, Service, calibrl, fault, job, page, problem


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "slopes.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    return path


def all_jobs(**changes: Any) -> dict[str, Any]:
    """A page with every job of the study."""
    found = expand(StudySpec.model_validate(STUDY)).jobs
    return page(*(job(labels={"study": "slopes", "study-digest": one.digest}, **changes) for one in found))


def test_a_faulty_study_is_refused_before_any_request(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "slopes.yaml"
    path.write_text(yaml.safe_dump(STUDY | {"arms": {"a": {"optimiser.lr": 1}}}))
    for command in ("run", "status", "report"):
        line = fault(calibrl("study", command, path), 2)
        assert "'optimiser.lr': a training spec has no field 'optimiser'; did you mean optimizer?" in line
    assert service.requests == []


def test_status_shows_the_progress_and_submits_nothing(service: Service, file: Path) -> None:
    service.on("GET", "/v1/jobs", all_jobs(status="running"))
    shown = calibrl("study", "status", file)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout.startswith("slopes: 0/8 jobs ended, 8 running, 0 waiting, 0 failed")
    assert json.loads(calibrl("study", "status", file, "--json").stdout)["running"] == 8
    assert {request.method for request in service.requests} == {"GET"}
    assert service.requests[0].query == {"project": "default", "label": "study:slopes", "limit": "1000"}


def test_run_ends_with_the_study(service: Service, file: Path) -> None:
    ended = {"finished_at": "2026-01-01T01:00:05Z", "status": "succeeded"}
    service.on("GET", "/v1/jobs", all_jobs(**ended))
    ran = calibrl("study", "run", file)
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert ran.stdout == "slopes: 8/8 jobs ended, 0 running, 0 waiting, 0 failed, 8.00 slot-hours, done\n"


def test_run_names_jobs_that_failed(service: Service, file: Path) -> None:
    service.on("GET", "/v1/jobs", all_jobs(status="failed", reason="out_of_memory"))
    ran = calibrl("study", "run", file)
    assert ran.exit_code == 1
    assert f"see `calibrl show {JOB_ID}`" in ran.stdout


def test_run_survives_a_service_that_is_away(service: Service, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "POLL_SECONDS", 0.0)
    ended = all_jobs(finished_at="2026-01-01T01:00:05Z", status="succeeded")
    service.on("GET", "/v1/jobs", None, None, None, ended)
    ran = calibrl("study", "run", file)
    assert ran.exit_code == 0
    assert "trying again" in ran.stdout
    service.on("GET", "/v1/jobs", problem(403, "Forbidden"))
    assert "Forbidden" in fault(calibrl("study", "run", file), 1)


def test_a_report_needs_its_extra(service: Service, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda module: None)
    assert "needs numpy: pip install 'calibrl[studies]'" in fault(calibrl("study", "report", file), 2)
