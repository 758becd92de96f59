"""The commands about files over real HTTP: what they send, print and refuse."""

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from calibrl.client import CalibrlError, Client

from .conftest import DATASET_ID as ID
from .conftest import JOB_ID, Service, calibrl, dataset, fault, job, page, problem


def checkpoint(step: int, best: bool) -> dict[str, Any]:
    return {"step": step, "path": "/p", "best": best, "metrics": {}, "created_at": "2026-01-01T00:00:00Z"}


def test_an_upload_sends_the_file_and_prints_the_id(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "q"}')
    service.on("POST", "/v1/datasets/upload", dataset())
    options = ("--column", "answer=result", "--project", "vision", "--format", "verl")
    result = calibrl("data", "upload", path, *options)
    assert (result.exit_code, result.stdout) == (0, f"{ID}\n")
    sent = service.requests[-1]
    assert sent.query == {"name": "mine", "project": "vision", "answer": "result", "format": "verl"}
    assert sent.body == {"question": "q"}
    assert sent.headers["Content-Length"] == str(path.stat().st_size)
    assert json.loads(calibrl("data", "upload", path, "--json").stdout)["rows"] == 1234
    assert "answer=result" in fault(calibrl("data", "upload", path, "--column", "answer"), 2)
    assert "does not exist" in fault(calibrl("data", "upload", tmp_path / "none.jsonl"), 2)


def test_an_upload_that_breaks_off_is_sent_again_whole(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "q"}')
    service.on("POST", "/v1/datasets/upload", None, (502, b""), (503, b""), (504, b""), dataset())
    assert calibrl("data", "upload", path).stdout == f"{ID}\n"
    assert [one.body for one in service.requests] == [{"question": "q"}] * 5
    file = io.BytesIO(b'read already{"question": "q"}')
    file.seek(12)
    service.on("POST", "/v1/datasets/upload", None, dataset())
    with Client() as client:
        client.upload(file, "mine")
    assert [one.body for one in service.requests[5:]] == [{"question": "q"}] * 2


def test_a_stream_readable_once_is_sent_once(service: Service) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"{}")
    os.close(writing)
    service.on("POST", "/v1/datasets/upload", (503, b""), dataset())
    with os.fdopen(reading, "rb") as pipe, Client() as client, pytest.raises(CalibrlError, match="answered 503"):
        client.upload(pipe, "mine")
    assert len(service.requests) == 1


def test_a_refused_file_is_reported_per_row(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("{}")
    errors = [{"field": "rows.3", "message": "column 'answer' is missing"}]
    service.on("POST", "/v1/datasets/upload", problem(422, "Invalid request", detail="1 thing", errors=errors))
    assert "rows.3: column 'answer' is missing" in fault(calibrl("data", "upload", path), 2)


def test_datasets_as_a_table_and_one_with_its_rows(service: Service) -> None:
    hub: dict[str, Any] = {"hub": "a/b", "split": "train", "revision": None, "columns": {}}
    named = dataset(format=None, bytes=None, rows=None, has_columns=None, has_experts=None, hub=hub)
    service.on("GET", "/v1/datasets", page(dataset(), named))
    lines = calibrl("data", "list").stdout.splitlines()
    assert all(part in lines[1] for part in (ID, "jsonl", "1,234", "2.0 MB", "no"))
    assert "a/b (train)" in lines[2]
    row = {"row": 1, "earlier": [], "question": "q\x1b[2J", "answer": "a", "expert": None, "data_source": None}
    known = {"row_format": "verl's format", "unused_columns": ["ability"]}
    service.on("GET", f"/v1/datasets/{ID}", dataset(**known))
    service.on("GET", f"/v1/datasets/{ID}/preview", page(row | {"images": [], "image_count": 2}))
    shown = calibrl("data", "show", ID).stdout
    assert "1,234" in shown and "QUESTION" in shown and "\x1b" not in shown
    assert "verl's format" in shown and "ability" in shown


def test_the_best_checkpoint_is_downloaded(service: Service, tmp_path: Path) -> None:
    path = f"/v1/jobs/{JOB_ID}"
    service.on("GET", path, job())
    service.on("GET", f"{path}/checkpoints", page(checkpoint(5, True), checkpoint(9, False)))
    assert [line.split()[:2] for line in calibrl("checkpoints", str(JOB_ID)).stdout.splitlines()][1] == ["5", "best"]
    files = [{"name": "a/b.json", "bytes": 4, "etag": "1-4"}]
    service.on("GET", f"{path}/checkpoints/5", checkpoint(5, True) | {"files": files})
    service.on("GET", f"{path}/checkpoints/5/files/a/b.json", (206, b"true"))
    result = calibrl("download", str(JOB_ID), tmp_path / "out", "--json")
    assert json.loads(result.stdout) == [str(tmp_path / "out/a/b.json")]
    assert (tmp_path / "out/a/b.json").read_bytes() == b"true"
    assert service.requests[-1].headers["If-Range"] == '"1-4"'


def test_a_download_with_another_size_is_not_kept(service: Service, tmp_path: Path) -> None:
    path = f"/v1/jobs/{JOB_ID}"
    service.on("GET", path, job())
    files = [{"name": "b.json", "bytes": 5, "etag": "1-5"}]
    service.on("GET", f"{path}/checkpoints/5", checkpoint(5, True) | {"files": files})
    service.on("GET", f"{path}/checkpoints/5/files/b.json", (206, b"12345678"))
    assert "other than its 5 bytes" in fault(calibrl("download", str(JOB_ID), tmp_path / "out", "--step", "5"), 1)
    service.on("GET", f"{path}/checkpoints/5/files/b.json", (200, b"12345"))
    assert "has changed" in fault(calibrl("download", str(JOB_ID), tmp_path / "out", "--step", "5"), 1)
    assert list((tmp_path / "out").rglob("b.json")) == []


def test_a_report_names_rewards_and_validation_rows(service: Service) -> None:
    counts = dict.fromkeys(("duplicates", "contradictions", "near_duplicates", "unearnable"), 0)
    empty = {
        "name": "mine",
        "rows": 2,
        "complete": True,
        "invalid": 0,
        "formats": {},
        "used_columns": [],
        "unused_columns": [],
        "with_expert": 0,
        "with_images": 0,
        "images": {},
        "truths": {},
        "prompt_characters": None,
        "expert_characters": None,
        "judged_experts": 0,
        "right_experts": 0,
        "pass_ratios": [],
        "warnings": [],
    }
    service.on("POST", f"/v1/datasets/{ID}/report", empty | counts)
    with Client() as client:
        assert client.dataset_report(ID, rewards=[{"type": "numeric"}], against=ID).rows == 2
    sent = service.requests[-1].body
    assert sent["against"] == ID and [one["type"] for one in sent["rewards"]] == ["numeric"]
