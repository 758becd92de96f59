"""A job that ships records, and a client's copy of them from its stream."""

import contextlib
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx

from calibrl.schemas import JobStatus
from jobs import lifecycle
from jobs.db import session_scope
from jobs.lifecycle import Claim
from jobs.repository import checkpoints, events, histograms, jobs, logs, metrics, samples
from tests.support import job_steps

NOW = datetime.now(UTC)


class Run:
    """A job that a worker holds, and what its shipper would write."""

    def __init__(self, seed: int = 0) -> None:
        job_steps.submit()
        self.claim: Claim = job_steps.claim()
        self.id = self.claim.job_id
        self.step = 0
        self._random = random.Random(seed)

    def ship(self, steps: int = 1, log: bytes = b"") -> None:
        with session_scope() as session:
            job = lifecycle.fence(session, self.claim)
            for _ in range(steps):
                self.step += 1
                value = self._random.random()
                metrics.upsert(session, self.id, [(self.step, NOW, {"reward/mean": value})])
                if self._random.random() < 0.4:
                    histograms.upsert(session, self.id, [(self.step, "rareness", [0.0, 0.5, 1.0], [1, self.step])])
                if self._random.random() < 0.3:
                    group = {"prompt_id": f"p{self.step}", "images": [], "completions": [{"reward": value}]}
                    samples.insert(session, self.id, self.step, group, 10**9)
                if self._random.random() < 0.2:
                    path = f"/runs/step-{self.step}"
                    checkpoints.record(session, self.id, self.step, path, value > 0.5, {"a": value}, [])
                    events.add(session, self.id, "checkpoint", actor="w", message=f"step {self.step}")
            if log:
                logs.append(session, job, log)
            jobs.set_progress(session, self.id, self.step, 1000)

    def rewind(self, to_step: int, again: int = 0) -> None:
        """Rewind like a resumed trainer's `start`, in one transaction with some of the repeated steps."""
        with session_scope() as session:
            lifecycle.fence(session, self.claim)
            jobs.rewind(session, self.id, to_step)
            self.step = to_step
            for _ in range(again):
                self.step += 1
                metrics.upsert(session, self.id, [(self.step, NOW, {"reward/mean": -1.0})])
            jobs.set_progress(session, self.id, self.step, None)

    def amend(self) -> None:
        """Validation comes after the step that it belongs to."""
        with session_scope() as session:
            lifecycle.fence(session, self.claim)
            metrics.upsert(session, self.id, [(max(1, self.step - 1), NOW, {"validation/accuracy": 0.5})])

    def finish(self, status: Any = JobStatus.SUCCEEDED) -> None:
        job_steps.finish(self.claim, status)


KEYS: dict[str, Any] = {  # key of a record per kind
    "events": lambda record: record["id"],
    "metrics": lambda record: record["step"],
    "histograms": lambda record: (record["step"], record["name"]),
    "samples": lambda record: record["id"],
    "checkpoints": lambda record: record["step"],
}


class Mirror:
    """The state of a client that applies the frames of a job's stream as docs/how-to/live-streams.md says."""

    def __init__(self) -> None:
        self.job: dict[str, Any] = {}
        self.records: dict[str, dict[Any, dict[str, Any]]] = {kind: {} for kind in KEYS}
        self.log: list[tuple[int, str]] = []

    def apply(self, event: str, data: dict[str, Any]) -> None:
        match event:
            case "status":
                self.job = data
            case "rewound":
                for kind in ("metrics", "histograms", "samples", "checkpoints"):
                    kept = {key: row for key, row in self.records[kind].items() if row["step"] <= data["to_step"]}
                    self.records[kind] = kept
            case "checkpoints":
                self.records[event] = {row["step"]: row for row in data["data"]}
            case "log":
                self.log = [*((start, text) for start, text in self.log if start < data["start"])]
                self.log.append((data["start"], data["text"]))
            case kind if kind in KEYS:
                self.records[kind] |= {KEYS[kind](row): row for row in data["data"]}

    def state(self) -> dict[str, Any]:
        known = {kind: [rows[key] for key in sorted(rows)] for kind, rows in self.records.items()}
        return {"job": self.job, "log": "".join(text for _, text in self.log), **known}


def rest(service: httpx.Client, id: UUID) -> dict[str, Any]:
    """Return the same records from the REST routes."""
    url = f"/v1/jobs/{id}"
    known = {kind: service.get(f"{url}/{kind}?limit=1000").json()["data"] for kind in ("events", "samples")}
    known["checkpoints"] = service.get(f"{url}/checkpoints").json()["data"]
    known["metrics"] = service.get(f"{url}/metrics?limit=5000&after_step=-1").json()["data"]
    known["histograms"] = service.get(f"{url}/histograms?name=rareness&limit=5000&after_step=-1").json()["data"]
    log, place = "", 0
    while (piece := service.get(f"{url}/log?after={place}").json())["next"] > place:
        log, place = log + piece["text"], piece["next"]
    return {"job": service.get(url).json(), "log": log, **known}


Message = tuple[str | None, str | None, Any]  # event, id, data


def messages(lines: Iterator[str]) -> Iterator[Message]:
    fields: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield fields.get("event"), fields.get("id"), json.loads(fields.get("data", "null"))
            fields = {}


@contextlib.contextmanager
def streaming(service: httpx.Client, path: str, **params: Any) -> Iterator[Iterator[Message]]:
    with service.stream("GET", path, params=params) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache"
        yield messages(answer.iter_lines())


def stream_of(id: UUID) -> str:
    return f"/v1/jobs/{id}/stream"


def read_to(stream: Iterator[Message], event: str) -> list[Message]:
    found = []
    for message in stream:
        found.append(message)
        if message[0] == event:
            return found
    raise AssertionError(f"no {event} among {[each[0] for each in found]}")
