"""The commands that make, find and change jobs, over real HTTP: what they send and print, and errors in one line."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from calibrl.schemas import JobSummary, MemoryPhase

from .conftest import JOB_ID, JOB_PATH, Service, calibrl, fault, job, page, problem


def summary(**changes: Any) -> dict[str, Any]:
    """A job as lists have it."""
    return {name: value for name, value in job(**changes).items() if name in JobSummary.model_fields}


def plan(**changes: Any) -> dict[str, Any]:
    """A plan as the API writes it."""
    phases = dict.fromkeys(get_args(MemoryPhase), 2**30)
    part = {"name": "weights", "bytes": 2 * 2**30, "phases": [*phases], "formula": "4 bytes x 512 parameters"}
    model = {"field": "model", "name": "Qwen/tiny", "commit": "a1b2" * 10, "download_bytes": 3 * 2**30, "check": None}
    facts = {"field": "data", "name": "digits", "rows": 4096, "checked": 4096, "with_expert": 4096, "with_images": 0}
    return {
        "spec": {"kind": "train"},
        "models": [model],
        "data": [
            facts | {"row_format": "verl's format", "unused_columns": ["ability"]},
            facts | {"field": "validation.data", "rows": None},
        ],
        "memory": {
            "bytes": 3 * 2**30,
            "on": "GPU",
            "host_bytes": 4 * 2**30,
            "phases": phases,
            "parameters": 512,
            "trained": 512,
            "parts": [part, part | {"name": "logits", "bytes": 2**20, "phases": ["update"]}],
            "fits": False,
            "explanation": "the available GPUs have 1.0 GiB",
            "remedies": ["parallel: fsdp"],
        },
        "steps": 1200,
        "queue": {
            "position": 3,
            "reason": "busy",
            "explanation": "waiting for 1 free GPU",
            "estimated_start": None,
            "expected_seconds": 7200.0,
            "slots": 2,
        },
        "warnings": [{"field": "optimizer.lr", "message": "0.1 is large"}],
    } | changes


def spec_file(folder: Path) -> Path:
    file = folder / "spec.yaml"
    file.write_text("kind: train\nsteps: 10\n")
    return file


def test_a_plan_as_tables_and_as_json(service: Service, tmp_path: Path) -> None:
    service.on("POST", "/v1/jobs:plan", plan())
    result = calibrl("plan", spec_file(tmp_path), "--set", "steps=20")
    assert result.exit_code == 0
    assert service.requests[0].body == {"kind": "train", "steps": 20}
    for part in (
        "4,096",
        "?",
        "2.0 GiB",
        "1.0 MiB",
        "3.2 GB, once",
        "a1b2a1b2a1b2",
        "4 bytes x 512",
        "have 1.0 GiB",
        "data: verl's format; unused columns: ability",
    ):
        assert part in result.stdout
    for part in (
        "waiting for 1 free GPU",
        "about 2h00m",
        "about 4.00 slot-hours",
        "optimizer.lr: 0.1 is large",
    ):
        assert part in result.stdout
    assert json.loads(calibrl("plan", spec_file(tmp_path), "--json").stdout)["queue"]["position"] == 3
    service.on("POST", "/v1/jobs:plan", plan(memory=None, warnings=[]))
    assert "Memory" not in calibrl("plan", spec_file(tmp_path)).stdout
    errors = [{"field": "steps", "message": "is missing"}]
    service.on("POST", "/v1/jobs:plan", problem(422, "Invalid request", errors=errors))
    assert fault(calibrl("plan", spec_file(tmp_path)), 2) == "calibrl: Invalid request: steps: is missing\n"


def test_a_fork_sends_the_changed_fields(service: Service) -> None:
    service.on("GET", JOB_PATH, job())
    service.on("POST", f"{JOB_PATH}/fork", (201, job(forked_from=str(JOB_ID), forked_step=50)))
    result = calibrl("fork", str(JOB_ID), "--checkpoint", "50", "--set", "optimizer.lr=1e-5", "--name", "slower")
    assert (result.exit_code, result.stdout) == (0, f"{JOB_ID}\n")
    sent = {"checkpoint": 50, "changes": {"optimizer": {"lr": 1e-5}}, "name": "slower"}
    assert service.requests[-1].body == sent
    calibrl("fork", str(JOB_ID), "--set", "data.path=d.jsonl", "--set", "validation=null")
    assert service.requests[-1].body == {
        "checkpoint": "best",
        "changes": {"data": {"path": str(Path("d.jsonl").resolve())}, "validation": None},
        "name": None,
    }
    assert json.loads(calibrl("fork", str(JOB_ID), "--json").stdout)["forked_step"] == 50
    assert "'first' is not best, last or a step" in fault(calibrl("fork", str(JOB_ID), "--checkpoint", "first"), 2)
    assert "--set 'steps': write it as key=value" in fault(calibrl("fork", str(JOB_ID), "--set", "steps"), 2)


def test_jobs_are_filtered_and_sorted(service: Service) -> None:
    service.on("GET", "/v1/jobs", page(summary(), has_more=True))
    options = [
        "--status",
        "failed",
        "--kind",
        "train",
        "--user",
        "ann",
        "--label",
        "team=a=b",
        "-q",
        "50%",
        "--limit",
        "1",
    ]
    dates = ["--since", "2026-01-01T00:00+00:00", "--until", "2026-02-01T02:00+02:00", "--sort", "-finished"]
    result = calibrl("jobs", *options, *dates)
    assert result.exit_code == 0
    assert "digits" in result.stdout
    assert result.stderr == "More jobs match. Use --limit to show up to 1000.\n"
    assert service.requests[-1].query == {
        "status": "failed",
        "kind": "train",
        "user": "ann",
        "label": "team:a=b",
        "q": "50%",
        "limit": "1",
        "created_after": "2026-01-01T00:00:00+00:00",
        "created_before": "2026-02-01T00:00:00+00:00",
        "sort": "-finished",
    }
    assert "spec" not in json.loads(calibrl("jobs", "--json").stdout)[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--since", "yesterday"], "'yesterday' is not a date: write it as 2026-11-24"),
        (["--label", "team"], "'team': write it as key=value"),
        (["--sort", "spec"], "--sort"),
        (["--limit", "0"], "--limit"),
    ],
)
def test_unknown_filters_are_refused(service: Service, options: list[str], says: str) -> None:
    assert says in fault(calibrl("jobs", *options), 2)
    assert service.requests == []


def test_labels_and_notes(service: Service) -> None:
    service.on("GET", JOB_PATH, job())
    service.on("PATCH", JOB_PATH, job(labels={"team": "vision"}, notes="why"))
    result = calibrl("label", str(JOB_ID), "team=vision", "--remove", "old")
    assert (result.exit_code, result.stdout) == (0, "team=vision\n")
    assert service.requests[-1].body == {"labels": {"old": None, "team": "vision"}}
    assert "give labels to set, or --remove" in fault(calibrl("label", str(JOB_ID)), 2)
    assert calibrl("note", str(JOB_ID), "why").stdout == f"{JOB_ID} digits: running, step 3/10\n"
    assert service.requests[-1].body == {"notes": "why"}
    assert json.loads(calibrl("note", str(JOB_ID), "", "--json").stdout)["notes"] == "why"
    assert service.requests[-1].body == {"notes": ""}


def test_the_service_searches_for_a_prefix_of_an_id(service: Service) -> None:
    service.on("GET", "/v1/jobs", page(summary()))
    service.on("PATCH", JOB_PATH, job())
    assert calibrl("note", "1111", "x").exit_code == 0
    assert service.requests[0].query == {"q": "1111", "limit": "100"}
