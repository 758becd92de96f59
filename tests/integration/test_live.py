"""Live streams over real HTTP and a real database: no gap and no repeat after any fault; and the client's copy."""

import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from api import live as api_live
from api.main import create_app
from calibrl.client import CalibrlError, Client, Live
from calibrl.commands import follow_job
from calibrl.schemas import Ended, Job, JobStatus, LogPiece, RecordBatch, Rewound
from calibrl.stack.services import free_port
from jobs import lifecycle, live
from jobs.db import session_scope
from jobs.lifecycle import Claim
from jobs.live import StreamPosition
from jobs.repository import checkpoints, events, histograms, janitor, jobs, logs, metrics, samples
from tests.support import API_KEY, life
from tests.support.rest import named, refused, serving
from tests.support.waiting import LIMIT_SECONDS, eventually

pytestmark = pytest.mark.integration
NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def long_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that a test process without a CPU does not lose."""
    monkeypatch.setenv("CALIBRL_LEASE_SECONDS", "600")


@pytest.fixture
def service(database: str) -> Iterator[httpx.Client]:
    with serving() as client:
        yield client


@pytest.fixture
def client(service: httpx.Client) -> Iterator[Client]:
    with Client(str(service.base_url), API_KEY) as client:
        yield client


class Run:
    """A job that a worker holds, and what its shipper would write."""

    def __init__(self, seed: int = 0) -> None:
        life.submit()
        self.claim: Claim = life.claim()
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
        life.finish(self.claim, status)


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


def test_a_stream_begins_with_the_job_and_continues_with_events(service: httpx.Client) -> None:
    run = Run()
    run.ship(3)
    with streaming(service, stream_of(run.id), max_seconds=30) as stream:
        event, id, job = next(stream)
        assert (event, job) == ("status", service.get(f"/v1/jobs/{run.id}").json())
        run.ship(log=b"step 4\n")
        found = read_to(stream, "status")
        kinds = [each[0] for each in found]
        assert (kinds[0], kinds[-2:]) == ("metrics", ["log", "status"])
        assert found[0][2]["job_id"] == str(run.id)
        assert [row["step"] for row in found[0][2]["data"]] == [4]
        assert found[-2][2] == {"job_id": str(run.id), "start": 0, "next": 7, "text": "step 4\n"}
        assert (found[-1][1], found[-1][2]["step"]) == (str(int(id or "") + 1), 4)
        run.finish()
        event, id, data = read_to(stream, "end")[-1]
        assert data == {"job_id": str(run.id), "status": "succeeded"}
        assert list(stream) == []  # the service has closed it


def test_the_stream_of_an_ended_job_sends_the_rest_and_ends(service: httpx.Client) -> None:
    run = Run()
    run.ship(2)
    run.finish()
    with streaming(service, stream_of(run.id)) as stream:
        assert [event for event, _, _ in stream] == ["status", "end"]
    with streaming(service, stream_of(run.id), after="0") as stream:
        kinds = [event for event, _, _ in stream]
    assert (kinds[-2:], "metrics" in kinds, "events" in kinds) == (["status", "end"], True, True)


def test_max_seconds_ends_a_stream(service: httpx.Client) -> None:
    run = Run()
    with streaming(service, stream_of(run.id), max_seconds=0.2) as stream:
        assert [event for event, _, _ in stream] == ["status"]


def test_unknown_jobs_and_invalid_positions_are_refused(service: httpx.Client) -> None:
    run = Run()
    unknown = UUID(int=7)
    refused(service.get(stream_of(unknown)), 404)
    for after in ("x", "1-2", "1.", "99999", "-1", "²"):
        assert named(service.get(stream_of(run.id), params={"after": after})) == ["after"]
    assert named(service.get(stream_of(run.id), headers={"Last-Event-ID": "x"}, params={"after": "0"})) == ["after"]
    assert named(service.get("/v1/stream", params={"after": "7"})) == ["after"]
    assert named(service.get("/v1/stream", params={"max_seconds": 0})) == ["max_seconds"]


def test_every_id_goes_on_behind_its_frame(service: httpx.Client) -> None:
    """Also in the middle of a transaction's frames: each frame comes exactly once, wherever the connection broke."""
    run = Run(3)
    run.ship(250, "é".encode() * 40_000)
    run.amend()
    run.ship(3)
    run.finish()
    with streaming(service, stream_of(run.id), after="0") as stream:
        whole = list(stream)
    assert [event for event, _, _ in whole].count("metrics") == 5
    assert [event for event, _, _ in whole].count("log") == 2
    for place, (_, id, _) in enumerate(whole[:-2]):
        with streaming(service, stream_of(run.id), after=id) as stream:
            assert list(stream) == whole[place + 1 :]


@pytest.mark.parametrize("seed", range(3))
def test_a_client_cut_off_repeatedly_has_the_same_records_as_rest(service: httpx.Client, seed: int) -> None:
    """Random shipping, going back to checkpoints and forgetting, a reader that is cut off anywhere; each step once."""
    chance = random.Random(seed)
    run = Run(seed)
    mirror, place = Mirror(), "0"
    for _ in range(25):
        for _ in range(chance.randrange(4)):
            match chance.choice(["ship", "ship", "ship", "rewind", "rewind again", "amend"]):
                case "ship":
                    text = "".join(chance.choice("aé漢😀\n") for _ in range(9)).encode()
                    run.ship(chance.choice([1, 2, 5, 130]), text[: chance.randrange(len(text))])
                case "rewind":
                    run.rewind(chance.randrange(run.step + 1))
                case "rewind again":
                    run.rewind(chance.randrange(run.step + 1), chance.randrange(5))
                case "amend" if run.step:
                    run.amend()
        with streaming(service, stream_of(run.id), after=place, max_seconds=0.15) as stream:
            for _, (event, id, data) in zip(range(chance.randrange(12)), stream, strict=False):
                mirror.apply(str(event), data)
                place = str(id)
    run.finish()
    with streaming(service, stream_of(run.id), after=place) as stream:
        for event, _, data in stream:
            mirror.apply(str(event), data)
    assert mirror.state() == rest(service, run.id)
    late = Mirror()
    with streaming(service, stream_of(run.id), after="0") as stream:
        for event, _, data in stream:
            late.apply(str(event), data)
    assert late.state() == mirror.state()


def test_writers_at_once_lose_and_repeat_nothing(service: httpx.Client) -> None:
    """Several write the job's events while a reader comes back again and again by its last id."""
    run = Run()
    each, writers = 25, 4

    def write(writer: int) -> None:
        for number in range(each):
            with session_scope() as session:
                lifecycle.fence(session, run.claim)
                events.add(session, run.id, "info", actor="w", message=f"{writer}:{number}")

    received: list[int] = []
    place = "0"
    with ThreadPoolExecutor(writers) as pool:
        done = [pool.submit(write, writer) for writer in range(writers)]
        while True:
            over = all(one.done() for one in done)
            with streaming(service, stream_of(run.id), after=place, max_seconds=0.3) as stream:
                for count, (event, id, data) in enumerate(stream):
                    place = str(id)
                    received += [row["id"] for row in data["data"]] if event == "events" else []
                    if not over and count == 7:
                        break
            if over:
                break
        assert [one.result() for one in done] == [None] * writers
    known = [row["id"] for row in service.get(f"/v1/jobs/{run.id}/events?limit=1000").json()["data"]]
    assert len(known) > each * writers
    assert received == known


def test_readers_drop_deleted_records_too(service: httpx.Client) -> None:
    run = Run(1)
    run.ship(30, b"some text\n")
    run.finish()
    mirror = Mirror()
    with streaming(service, stream_of(run.id), after="0") as stream:
        for event, id, data in stream:
            mirror.apply(str(event), data)
            place = id
    with session_scope() as session:
        jobs.lock(session, run.id)
        assert janitor.forget(session, run.id)
        events.add(session, run.id, "forgotten", actor="janitor")
    for after, known in ((place, mirror), ("0", Mirror())):
        with streaming(service, stream_of(run.id), after=after) as stream:
            for event, _, data in stream:
                known.apply(str(event), data)
        state = known.state()
        assert state == rest(service, run.id)
        assert (state["metrics"], state["log"], state["events"][-1]["type"]) == ([], "", "forgotten")


def test_the_stream_of_all_jobs_skips_nothing_that_commits_late(service: httpx.Client, database: str) -> None:
    first, second = Run(), Run()
    with streaming(service, "/v1/stream", max_seconds=60) as stream:
        event, begin, _ = next(stream)
        assert event is None
        with psycopg.connect(database.replace("+psycopg", "")) as slow:
            slow.execute("SELECT pg_current_xact_id()")  # older than what comes now, and not yet over
            with session_scope() as session:
                lifecycle.fence(session, first.claim)
                events.add(session, first.id, "info", actor="w", message="early")
            with session_scope() as session:
                assert live.next_page(session, StreamPosition.parse(begin or "", 2)) == live.StreamPage(
                    StreamPosition.parse(begin or "", 2), held=True
                )
            slow.execute("UPDATE jobs SET feed = feed + 1 WHERE id = %s", [second.id])
            row = "INSERT INTO feed (job_id, cursor, parts) SELECT id, feed, '[]' FROM jobs WHERE id = %s"
            slow.execute(row, [second.id])
        found = [next(stream) for _ in range(3)]
    received = [(event, data.get("id") or data["job_id"]) for event, _, data in found]
    assert received == [("status", str(second.id)), ("events", str(first.id)), ("status", str(first.id))]
    for place, (_, id, _) in enumerate(found):  # and each id goes on behind its frame
        with streaming(service, "/v1/stream", after=id, max_seconds=0.3) as stream:
            assert list(stream) == found[place + 1 :]


def test_the_stream_of_all_jobs_shows_each_client_its_own_projects(service: httpx.Client) -> None:
    run = Run()
    with session_scope() as session:
        page = api_live.Encoded.of(live.next_page(session, StreamPosition((0, 0))))
    assert str(run.id).encode() in page.visible_to(None)
    assert page.visible_to(frozenset({"default"})) == page.visible_to(None)
    assert page.visible_to(frozenset({"other"})) == b""


def listeners(database: str) -> list[int]:
    with psycopg.connect(database.replace("+psycopg", "")) as connection:
        query = (
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'calibrl live' AND datname = current_database()"
        )
        return [pid for (pid,) in connection.execute(query)]


def test_a_listener_that_is_killed_is_replaced(service: httpx.Client, database: str) -> None:
    run = Run()
    with streaming(service, stream_of(run.id), max_seconds=60) as stream:
        next(stream)
        (before,) = eventually(lambda: listeners(database))
        life.run("SELECT pg_terminate_backend(:pid)", pid=before)
        run.ship()
        assert read_to(stream, "status")[-1][2]["step"] == 1
        assert eventually(lambda: [pid for pid in listeners(database) if pid != before])
        run.ship()
        assert read_to(stream, "status")[-1][2]["step"] == 2


def test_many_streams_hold_no_database_connection(service: httpx.Client, database: str) -> None:
    """200 streams over raw sockets share one listener and the pool; one read serves a change to all of them."""
    run = Run()
    with contextlib.ExitStack() as open_:
        sockets = [
            open_.enter_context(socket.create_connection((service.base_url.host, service.base_url.port or 0)))
            for _ in range(200)
        ]
        for one in sockets:
            one.settimeout(30)
            one.sendall(request_of(run))
        assert all(_until(one, b"event: status") for one in sockets)
        with psycopg.connect(database.replace("+psycopg", ""), autocommit=True) as connection:  # each look is new
            query = """
                SELECT count(*) FILTER (WHERE state <> 'idle') FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()
            """
            assert eventually(lambda: connection.execute(query).fetchone() == (0,))
        assert len(listeners(database)) == 1
        run.ship()
        assert all(_until(one, b"event: metrics") for one in sockets)


def _until(one: socket.socket, text: bytes) -> bool:
    got = b""
    while text not in got:
        piece = one.recv(65_536)
        assert piece, got
        got += piece
    return True


def test_a_client_that_does_not_read_is_cut_off(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_live, "SEND_SECONDS", 0.3)
    run = Run()
    app = create_app()
    with serving(app) as service, socket.socket() as lazy:
        service.get("/healthz")
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect((service.base_url.host, service.base_url.port or 0))
        lazy.sendall(request_of(run))
        eventually(lambda: app.state.hub.streams == 1)
        written = 0
        while app.state.hub.streams:
            run.ship(1, b"x" * 200_000)
            written += 1
            assert written < 200


def request_of(run: Run) -> bytes:
    return f"GET {stream_of(run.id)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\n\r\n".encode()


def test_a_stopping_process_ends_its_streams(database: str) -> None:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "api.main:app", "--port", str(port), "--log-level", "warning"]
    run = Run()
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        transport = httpx.HTTPTransport(retries=8)
        headers = {"Authorization": f"Bearer {API_KEY}"}
        with (
            httpx.Client(
                base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=LIMIT_SECONDS, transport=transport
            ) as client,
            streaming(client, stream_of(run.id)) as stream,
        ):
            next(stream)
            process.send_signal(signal.SIGTERM)
            assert list(stream) == []
        process.wait(LIMIT_SECONDS)


def test_the_client_reconnects_at_its_last_position(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection ends after 0.2 s; each step arrives once, in order, and `wait` ends with the job."""
    monkeypatch.setattr("calibrl.client.live.LONGEST_STREAM", 0.2)
    run = Run()
    waiting: list[Job] = []
    waiter = threading.Thread(target=lambda: waiting.append(client.wait(run.id)))
    waiter.start()
    received: list[Live] = []
    for live_ in client.stream(run.id, after="0"):
        received.append(live_)
        if live_.event == "status" and run.step < 12:
            run.ship(log=b"line\n")
        elif live_.event == "status" and run.step == 12 and not live_.data.status.final:
            run.rewind(8)
            run.ship(4)
            run.step = 13
            run.finish()
    waiter.join(LIMIT_SECONDS)
    assert waiting[0].status is JobStatus.SUCCEEDED
    steps = [row.step for each in received if each.event == "metrics" for row in each.data.data]
    assert steps == [*range(1, 13), 9, 10, 11, 12]
    assert [each.data.to_step for each in received if isinstance(each.data, Rewound)] == [8]
    assert "".join(each.data.text for each in received if isinstance(each.data, LogPiece)) == "line\n" * 12
    assert isinstance(received[-1].data, Ended)
    assert all(isinstance(each.data, RecordBatch) for each in received if each.event == "checkpoints")


def test_waiting_has_a_limit(client: Client) -> None:
    run = Run()
    with pytest.raises(CalibrlError, match=r"has not ended within 0\.3 s"):
        client.wait(run.id, timeout=0.3)
    with pytest.raises(CalibrlError, match="Not found"):
        client.wait(UUID(int=1))


def test_the_stream_of_all_jobs_through_the_client(client: Client) -> None:
    heard = client.stream_all(after="0")
    run = Run()
    found = next(each for each in heard if each.event == "status" and each.data.status is JobStatus.RUNNING)
    assert found.data.id == run.id


def test_watching_and_reading_the_log_by_stream(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(follow_job, "_follow_by_polling")  # it does not fall back
    run = Run()
    run.ship(5, "wé".encode()[:2])
    course = follow_job.follow(client, run.id)
    text = follow_job.log_text(client, run.id)
    job, rows, happened = next(course)
    assert (job.step, sorted(rows)) == (5, [1, 2, 3, 4, 5])
    assert [event.type for event in happened][:2] == ["submitted", "claimed"]
    assert next(text) == "w"
    run.rewind(3)
    run.ship(1, "é".encode()[1:] + b" and on\n")
    run.finish()
    *_, (job, rows, _) = course
    assert (job.status, sorted(rows)) == (JobStatus.SUCCEEDED, [1, 2, 3, 4])
    assert "".join(text) == "é and on\n"
