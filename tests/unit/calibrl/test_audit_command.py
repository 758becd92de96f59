"""`calibrl audit` over real HTTP: the summary, its worst rows, and the rows that it writes."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.audits import CONCLUSION, audit_result

from .conftest import JOB_ID, JOB_PATH, Service, calibrl, fault, job, problem

DATASET = "99999999-2222-3333-4444-555555555555"
ROWS = [{"question": f"{number}?", "answer": number, "expert": f"expert {number}"} for number in range(1, 5)]
VERDICTS = (  # verdict and restatement by row
    ("use", None),
    ("rewrite", "<think>2</think><answer>2</answer>"),
    ("drop", None),
    ("rewrite", None),
)


def audited(service: Service, data: dict[str, Any]) -> None:
    """Answer as the API does for a succeeded audit of this data."""
    spec = {"kind": "audit", "name": "a", "model": {"builtin": "tiny-vlm"}, "data": data}
    service.on("GET", JOB_PATH, job(kind="audit", status="succeeded", spec=spec))
    service.on("GET", f"{JOB_PATH}/audit", audit_result())
    lines = [
        {"row": number, "verdict": verdict, "rewrite": text} for number, (verdict, text) in enumerate(VERDICTS, start=1)
    ]
    content = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    file = {"name": "audit.jsonl", "bytes": len(content), "etag": "e"}
    service.on("GET", f"{JOB_PATH}/results", {"data": [file], "has_more": False})
    service.on("GET", f"{JOB_PATH}/results/audit.jsonl", (206, content))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return path


def test_the_summary_and_the_worst_rows_are_shown(service: Service) -> None:
    audited(service, {"builtin": "digits"})
    shown = calibrl("audit", JOB_ID)
    assert (shown.exit_code, shown.stderr) == (0, "")
    for part in ("use 2 (50.0%), rewrite 1 (25.0%), drop 1 (25.0%)", "3 right, 4 in the format, 0 cut", CONCLUSION):
        assert part in shown.stdout
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert [line[:5] for line in lines if line[1:2] in (["drop"], ["rewrite"], ["use"])][-3:] == [
        ["3", "drop", "1.00", "25%", "+1.50"],
        ["2", "rewrite", "3.50", "25%", "–"],
        ["1", "use", "0.75", "25%", "+1.50"],
    ]
    assert "more than max_nll (2); restated with 0.90 nats per token" in shown.stdout
    assert "refuses the expert" not in calibrl("audit", JOB_ID, "--rows", "0").stdout
    assert json.loads(calibrl("audit", JOB_ID, "--json").stdout)["verdicts"] == {"use": 2, "rewrite": 1, "drop": 1}


def test_the_rows_to_use_and_restated_ones_are_written(service: Service, source: Path, tmp_path: Path) -> None:
    audited(service, {"path": str(source)})
    target = tmp_path / "kept.jsonl"
    shown = calibrl("audit", JOB_ID, "--write", target)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout.endswith(f"2 rows are in {target}; 1 of them have a restated expert\n")
    kept = [json.loads(line) for line in target.read_text().splitlines()]
    assert kept == [ROWS[0], ROWS[1] | {"expert": VERDICTS[1][1]}]
    assert "exists already" in calibrl("audit", JOB_ID, "--write", target).stderr


def test_the_rows_of_a_dataset_are_downloaded(service: Service, source: Path, tmp_path: Path) -> None:
    audited(service, {"dataset": DATASET})
    content = source.read_bytes()
    known: dict[str, Any] = {"id": DATASET, "project": "default", "user": "user", "name": "sums", "format": "jsonl"}
    known |= {"sha256": "0" * 64, "bytes": len(content), "rows": 4, "columns": {}, "has_columns": None}
    known |= {"has_experts": True, "hub": None, "created_at": "2026-01-01T00:00:00Z"}
    service.on("GET", f"/v1/datasets/{DATASET}", known)
    service.on("GET", f"/v1/datasets/{DATASET}/content", (206, content))
    assert calibrl("audit", JOB_ID, "--write", tmp_path / "kept.jsonl").exit_code == 0
    assert len((tmp_path / "kept.jsonl").read_text().splitlines()) == 2


def test_rows_that_cannot_be_written_are_explained(service: Service, tmp_path: Path) -> None:
    audited(service, {"path": "/no/such.jsonl"})
    refused = calibrl("audit", JOB_ID, "--write", tmp_path / "kept.jsonl")
    assert (refused.exit_code, "is not on this machine" in refused.stderr) == (2, True)
    audited(service, {"builtin": "digits", "split": "train"})
    assert "are generated" in calibrl("audit", JOB_ID, "--write", tmp_path / "kept.jsonl").stderr
    service.on("GET", f"{JOB_PATH}/audit", problem(409, "Conflict", detail="Job x has not ended: it is running."))
    assert "has not ended" in fault(calibrl("audit", JOB_ID), 1)
