"""A real HTTP server with configured answers, which records the requests."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from tenacity import wait_none
from typer.testing import CliRunner, Result

from calibrl import cli
from calibrl.client import connection
from tests.support.waiting import LIMIT_SECONDS

KEY = "key-of-the-test"
JOB_ID = UUID("11111111-2222-3333-4444-555555555555")
OTHER_ID = UUID("11111111-0000-0000-0000-000000000000")
JOB_PATH = f"/v1/jobs/{JOB_ID}"
DATASET_ID = "99999999-2222-3333-4444-555555555555"
SPEC = {
    "kind": "train",
    "name": "digits",
    "model": {"builtin": "tiny-vlm"},
    "data": {"builtin": "digits"},
    "prompts_per_step": 8,
    "steps": 10,
}


def job(id: UUID = JOB_ID, **changes: Any) -> dict[str, Any]:
    """A job as the API writes it."""
    return {
        "id": str(id),
        "name": "digits",
        "kind": "train",
        "project": "default",
        "user": "user",
        "priority": "normal",
        "labels": {},
        "gpus": 0,
        "status": "running",
        "reason": None,
        "message": None,
        "step": 3,
        "steps_total": 10,
        "attempt": 1,
        "depends_on": [],
        "created_at": "2026-01-01T00:00:00Z",
        "started_at": "2026-01-01T00:00:05Z",
        "finished_at": None,
        "spec": {"kind": "train", "steps": 10},
        "result": None,
    } | changes


def entry(id: UUID = JOB_ID, **changes: Any) -> dict[str, Any]:
    """A queue's entry as the API writes it."""
    return {
        "job_id": str(id),
        "name": "digits",
        "project": "default",
        "user": "user",
        "priority": "normal",
        "gpus": 0,
        "status": "queued",
        "position": 1,
        "reason": "busy",
        "explanation": "waiting for a free CPU slot",
        "estimated_start": None,
        "queued_at": "2026-01-01T00:00:00Z",
    } | changes


def machine(**changes: Any) -> dict[str, Any]:
    """A machine as the API writes it: JOB_ID on one of its GPUs, another job on a CPU slot."""
    gpu = {
        "index": 0,
        "name": "H100",
        "uuid": "GPU-0",
        "memory_total": 80 * 2**30,
        "memory_used": 64 * 2**30,
        "utilisation": 50.0,
        "job_id": str(JOB_ID),
        "clean": False,
    }
    return {
        "name": "gpu-1",
        "host": "gpu-1",
        "labels": {"site": "b"},
        "versions": {"python": "3.11"},
        "status": "online",
        "cpu_slots": 2,
        "gpus": [gpu, gpu | {"index": 1, "utilisation": 0.0, "job_id": None}],
        "jobs": [str(JOB_ID), "22222222-0000-0000-0000-000000000000"],
        "heartbeat_at": "2026-01-01T00:00:00Z",
    } | changes


def project(**changes: Any) -> dict[str, Any]:
    """A project as the API writes it."""
    return {
        "slug": "vision",
        "weight": 1.0,
        "max_gpus": None,
        "max_queued": None,
        "budget_slot_hours": None,
        "max_priority": None,
        "max_run_hours": None,
        "user_budget_slot_hours": None,
        "retention_days": None,
        "created_at": "2026-01-01T00:00:00Z",
    } | changes


def dataset(**changes: Any) -> dict[str, Any]:
    """A dataset as the API writes it."""
    return {
        "id": DATASET_ID,
        "project": "default",
        "user": "user",
        "name": "mine",
        "format": "jsonl",
        "sha256": "0" * 64,
        "bytes": 2_000_000,
        "rows": 1234,
        "columns": {},
        "has_columns": ["answer", "question"],
        "has_experts": False,
        "hub": None,
        "created_at": "2026-01-01T00:00:00Z",
    } | changes


def page(*data: Any, has_more: bool = False) -> dict[str, Any]:
    return {"data": list(data), "has_more": has_more}


def problem(status: int, title: str, **more: Any) -> tuple[int, dict[str, Any]]:
    return status, {"type": "about:blank", "title": title, "status": status} | more


def calibrl(*arguments: str | Path | UUID) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def fault(result: Result, code: int) -> str:
    """The one line on stderr of a command that failed with this code and said nothing else."""
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("calibrl: ")
    assert result.stderr.endswith("\n")
    assert result.stderr.count("\n") == 1
    return result.stderr


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Service:
    """`answers[method, path]` are given one after the other, the last one again and again."""

    url: str
    answers: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)

    def on(self, method: str, path: str, *answers: Any) -> None:
        """Set the answers: a body, (status, body), (status, body, headers), or a function that returns one of them
        when it is asked; None: the connection is closed without an answer."""
        self.answers[method, path] = list(answers)

    def answer(self, request: Request) -> tuple[int, Any, dict[str, str]] | None:
        self.requests.append(request)
        answers = self.answers.get((request.method, request.path))
        if not answers:
            return *problem(404, "Not found", detail=f"{request.path} does not exist"), {}
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer = answer() if callable(answer) else answer
        if answer is None:
            return None
        status, content, *headers = answer if isinstance(answer, tuple) else (200, answer)
        return status, content, *(headers or [{}])


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            target = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            query = {name: values[0] for name, values in parse_qs(target.query).items()}
            request = Request(self.command, target.path, query, dict(self.headers), json.loads(body) if body else None)
            answer = service.answer(request)
            if answer is None:
                self.close_connection = True
                return
            status, content, headers = answer
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Service]:
    """A server that the settings name as the API; no local stack runs on the data folder. A repeated request is sent
    without a pause, unless the server's answer asks for one."""
    monkeypatch.setattr(connection, "BACKOFF", wait_none())
    service = Service("")
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(service)) as server:
        service.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("CALIBRL_API_URL", service.url)
        monkeypatch.setenv("CALIBRL_API_KEY", KEY)
        monkeypatch.setenv("CALIBRL_DATA_DIR", str(tmp_path / "data"))
        yield service
        server.shutdown()
        thread.join(LIMIT_SECONDS)
