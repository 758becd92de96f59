"""The API over real HTTP, against real Postgres and Valkey."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from api.examples import EVALUATE, TRAIN
from api.routes import health
from calibrl.schemas import JobStatus, Reason
from calibrl.stack.services import free_port
from jobs import lifecycle
from jobs.db import session_scope
from jobs.lifecycle import Outcome
from jobs.repository import checkpoints, histograms, images, jobs, logs, metrics, samples
from jobs.settings import get_settings
from tests.support import API_KEY, job_steps
from tests.support.rest import named, refused, serving, submitted
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_submit_read_list_and_cancel(http: httpx.Client) -> None:
    answer = http.post("/v1/jobs", json=TRAIN)
    job = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["status"], job["name"], job["project"]) == ("queued", "digits-calibrl", "default")
    assert job["spec"]["algorithm"]["clip_low"] == 0.2  # every default filled in
    assert http.get(answer.headers["location"]).json() == job

    evaluation = http.post("/v1/jobs", json={**EVALUATE, "models": [{"from_job": job["id"]}]}).json()
    assert (evaluation["status"], evaluation["depends_on"]) == ("waiting", [job["id"]])
    listed = http.get("/v1/jobs").json()
    assert [each["id"] for each in listed["data"]] == [evaluation["id"], job["id"]]
    assert not listed["has_more"]

    cancelled = http.post(f"/v1/jobs/{job['id']}/cancel").json()
    assert (cancelled["status"], cancelled["reason"]) == ("cancelled", "user")
    assert http.get(f"/v1/jobs/{evaluation['id']}").json()["reason"] == "dependency_failed"
    refused(http.post(f"/v1/jobs/{job['id']}/cancel"), 409)
    events = http.get(f"/v1/jobs/{job['id']}/events").json()["data"]
    assert [event["type"] for event in events] == ["submitted", "cancelled"]


def test_lists_are_paged(http: httpx.Client) -> None:
    ids = [submitted(http)["id"] for _ in range(3)]
    first = http.get("/v1/jobs", params={"limit": 2}).json()
    assert ([job["id"] for job in first["data"]], first["has_more"]) == ([ids[2], ids[1]], True)
    rest = http.get("/v1/jobs", params={"limit": 2, "after": ids[1]}).json()
    assert ([job["id"] for job in rest["data"]], rest["has_more"]) == ([ids[0]], False)
    assert http.get("/v1/jobs", params={"status": "running"}).json()["data"] == []


def test_a_runs_records_can_be_read(http: httpx.Client) -> None:
    job = submitted(http)["id"]
    id, sha = UUID(job), "c" * 64
    group = {"prompt_id": "p", "completions": [{"text": "<b>7</b>", "reward": 1.0, "passed": True}], "images": [sha]}
    job_steps.machine("w")
    with session_scope() as session:
        claim = lifecycle.claim(session, worker="w")
        assert claim is not None
        metrics.upsert(session, id, [(step, NOW, {"a": float("nan"), "b": step}) for step in (0, 1, 2)])
        histograms.upsert(session, id, [(1, "rareness", [0.0, 0.5, 1.0], [2, 3])])
        samples.insert(session, id, 1, group, 10_000)
        images.put(session, id, sha, b"\x89PNG")
        checkpoints.record(session, id, 2, "/c/2", True, {"validation/accuracy": 0.5}, [])
        logs.append(session, jobs.get(session, id), "naïve\n".encode())
        lifecycle.finish(session, claim, Outcome(JobStatus.FAILED, Reason.CRASHED, "boom", None))

    run = f"/v1/jobs/{job}"
    rows = http.get(f"{run}/metrics", params={"after_step": -1, "limit": 2}).json()
    assert [(row["step"], row["values"]) for row in rows["data"]] == [
        (0, {"a": "NaN", "b": 0}),
        (1, {"a": "NaN", "b": 1}),
    ]
    assert rows["has_more"]
    assert http.get(f"{run}/metrics", params={"names": "b"}).json()["data"][-1]["values"] == {"b": 2}
    (histogram,) = http.get(f"{run}/histograms", params={"name": "rareness"}).json()["data"]
    kept = {"step": 1, "name": "rareness", "edges": [0.0, 0.5, 1.0], "counts": [2, 3]}
    assert histogram == {**kept, "width": 1, "merged": 1, "left_out": 0}
    (summary,) = http.get(f"{run}/samples", params={"step": 1}).json()["data"]
    assert (summary["passed"], summary["size"], summary["mean_reward"]) == (1, 1, 1.0)
    for sought, found in (({"q": "<B>7"}, 1), ({"q": "8"}, 0), ({"min_reward": 1}, 1), ({"max_reward": 0.9}, 0)):
        assert len(http.get(f"{run}/samples", params=sought).json()["data"]) == found
    refused(http.get(f"{run}/samples", params={"min_reward": "nan"}), 422)
    assert http.get(f"{run}/samples/{summary['id']}").json()["group"] == group
    image = http.get(f"{run}/images/{sha}")
    assert (image.headers["content-type"], image.content) == ("image/png", b"\x89PNG")
    (checkpoint,) = http.get(f"{run}/checkpoints").json()["data"]
    assert (checkpoint["step"], checkpoint["path"], checkpoint["best"]) == (2, "/c/2", True)
    assert http.get(f"{run}/log").json() == {"text": "naïve\n", "next": 7}
    assert http.get(f"{run}/log", params={"after": 7}).json() == {"text": "", "next": 7}
    (worker,) = http.get("/v1/workers").json()["data"]
    assert (worker["name"], worker["status"], worker["jobs"]) == ("w", "online", [])
    read = http.get(run).json()
    assert (read["status"], read["reason"], read["message"], read["attempt"]) == ("failed", "crashed", "boom", 1)


def test_a_character_cut_in_two_by_the_log_is_put_together(http: httpx.Client) -> None:
    job = submitted(http)["id"]
    encoded = ("é" * 30).encode()
    with session_scope() as session:
        logs.append(session, jobs.lock(session, UUID(job)), encoded[:31])
        logs.append(session, jobs.lock(session, UUID(job)), encoded[31:])
    seen, after = "", 0
    while chunk := http.get(f"/v1/jobs/{job}/log", params={"after": after, "limit_bytes": 17}).json():
        seen += chunk["text"]
        if chunk["next"] == after:
            break
        after = chunk["next"]
    assert seen == "é" * 30


def test_a_job_that_is_not_there(http: httpx.Client) -> None:
    for path in ("", "/metrics", "/histograms?name=x", "/samples", "/samples/1", "/events", "/log", "/checkpoints"):
        assert "no job" in refused(http.get(f"/v1/jobs/{uuid4()}{path}"), 404)["detail"]


def test_missing_parts_of_a_job_are_a_404(http: httpx.Client) -> None:
    job = submitted(http)["id"]
    refused(http.get(f"/v1/jobs/{job}/samples/1"), 404)
    refused(http.get(f"/v1/jobs/{job}/images/{'0' * 64}"), 404)
    refused(http.get(f"/v1/jobs/{job}/nothing"), 404)
    refused(http.post(f"/v1/jobs/{uuid4()}/cancel"), 404)


def test_addresses_and_methods_that_do_not_exist(http: httpx.Client) -> None:
    refused(http.get("/nothing"), 404)
    refused(http.get("/v1/nothing"), 404)
    refused(http.put("/v1/jobs"), 405)


def test_the_key_is_checked_before_anything_else(http: httpx.Client) -> None:
    http.headers.pop("authorization")
    for header in (None, "", "Bearer", "Bearer wrong", f"Basic {API_KEY}", "Bearer é"):
        headers = {} if header is None else {"Authorization": header.encode()}
        for path in ("/v1/jobs", "/v1/workers", "/v1/nothing", "/v1"):
            answer = http.post(path, content="{", headers=headers)  # type: ignore[arg-type]
            refused(answer, 401)
            sent = header in ("Bearer wrong", "Bearer é")
            assert answer.headers["www-authenticate"] == ('Bearer error="invalid_token"' if sent else "Bearer")
            assert answer.json()["detail"].startswith("The service does not accept" if sent else "Send the header")
    for path in ("/healthz", "/readyz", "/openapi.json", "/schemas/job-spec.json"):
        assert http.get(path).status_code == 200


BAD_SPECS: list[tuple[dict[str, Any], list[str]]] = [
    ({"bogus": 1}, ["bogus"]),
    ({"steps": "many"}, ["steps"]),
    ({"steps": -1}, ["steps"]),
    ({"rollout": {"group_size": 1}}, ["rollout.group_size"]),
    ({"project": "nope"}, ["project"]),
    ({"model": {"from_job": str(UUID(int=1))}}, ["model.from_job"]),
    ({"model": {"path": "/no/such/folder"}}, ["model.path"]),
    ({"data": {"path": "/no/such.jsonl"}}, ["data.path"]),
    ({"data": {"builtin": "nope"}}, ["data.builtin"]),
    ({"depends_on": [str(UUID(int=1))]}, ["depends_on.0"]),
    ({"algorithm": {"type": "calibrl", "negative_slope": 2}, "seed": -1}, ["algorithm.negative_slope", "seed"]),
    ({"labels": {"team": "a\x00b"}}, ["labels.team"]),
    ({"name": "a\x00b"}, ["name"]),
    ({"name": "x" * 500}, ["name"]),
    ({"optimizer": {"lr": 1e400}}, ["optimizer.lr"]),
    ({"seed": 10**30}, ["seed"]),
]


def test_bad_specs_are_refused_by_field(http: httpx.Client) -> None:
    for changes, fields in BAD_SPECS:
        body = json.dumps({**TRAIN, **changes})
        answer = http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
        assert named(answer) == fields, changes
    assert http.get("/v1/jobs").json()["data"] == []


def test_a_file_that_can_not_be_trained_on(http: httpx.Client, tmp_path: Path) -> None:
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"question": "1+1?", "answer": "2"}\n')
    data = {"path": str(bare)}
    assert named(http.post("/v1/jobs", json={**TRAIN, "data": data})) == ["data.path"]
    submitted(http, data=data, algorithm={"type": "grpo"})


def test_an_evaluation_is_not_a_model_source(http: httpx.Client) -> None:
    evaluation = http.post("/v1/jobs", json=EVALUATE).json()["id"]
    answer = http.post("/v1/jobs", json={**TRAIN, "model": {"from_job": evaluation}})
    assert named(answer) == ["model.from_job"]


def test_bodies_that_are_not_specs_are_refused(http: httpx.Client) -> None:
    bodies = [
        (b"{", 400),
        (b"", 422),
        (b"[]", 422),
        (b"5", 422),
        (b"null", 422),
        (b"\xff\xfe\x00", 400),
        (b'{"kind": "train", "steps": ' + b"9" * 10_000 + b"}", 400),
        (b"[" * 100_000, 400),
        (b'{"\\ud800": 1, "kind": "\\ud800"}', 422),
        (b'{"kind": "train", "\\u0000": 1}', 422),
        (b'"' + b"x" * 1_100_000 + b'"', 413),
    ]
    for body, status in bodies:
        refused(http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"}), status)


def test_a_body_must_be_declared_json_and_has_a_size_limit(http: httpx.Client) -> None:
    refused(http.post("/v1/jobs", content=json.dumps(TRAIN), headers={"Content-Type": "text/plain"}), 415)
    endless = (b"x" * 100_000 for _ in range(20))  # no Content-Length
    refused(http.post("/v1/jobs", content=endless, headers={"Content-Type": "application/json"}), 413)


def test_bad_queries_are_refused_by_name(http: httpx.Client) -> None:
    run = f"/v1/jobs/{submitted(http)['id']}"
    queries = [
        ("/v1/jobs/not-a-uuid", ["job_id"]),
        ("/v1/jobs?limit=0", ["limit"]),
        ("/v1/jobs?limit=many", ["limit"]),
        ("/v1/jobs?limit=999999999999999999999999", ["limit"]),
        ("/v1/jobs?status=dancing", ["status.0"]),
        ("/v1/jobs?label=team", ["label.0"]),
        ("/v1/jobs?created_after=2026-01-01T00:00", ["created_after"]),
        ("/v1/jobs?sort=spec", ["sort"]),
        ("/v1/jobs?q=", ["q"]),
        ("/v1/jobs?colour=red", ["colour"]),
        ("/v1/jobs?after=x", ["after"]),
        (f"/v1/jobs?after={UUID(int=1)}", ["after"]),
        ("/v1/jobs?project=No%20Slug", ["project"]),
        (f"{run}/metrics?after_step=99999999999", ["after_step"]),
        (f"{run}/histograms", ["name"]),
        (f"{run}/samples?after=-1", ["after"]),
        (f"{run}/samples/99999999999999999999", ["sample_id"]),
        (f"{run}/images/zz", ["sha256"]),
        (f"{run}/log?limit_bytes=1", ["limit_bytes"]),
    ]
    for path, fields in queries:
        assert named(http.get(path)) == fields, path


def test_no_address_holds_a_nul(http: httpx.Client) -> None:
    refused(http.get("/v1/workers?after=%00"), 400)
    refused(http.get(f"/v1/jobs/{submitted(http)['id']}/metrics?names=a%00"), 400)
    assert http.get("/v1/jobs/%00").status_code == 400


def test_every_answer_has_the_request_id(http: httpx.Client) -> None:
    assert http.get("/healthz", headers={"X-Request-ID": "mine-1"}).headers["x-request-id"] == "mine-1"
    made = http.get("/v1/jobs", headers={"X-Request-ID": "not one; {}" + "x" * 99}).headers["x-request-id"]
    assert len(made) == 32


@pytest.mark.usefixtures("database")
def test_a_crash_is_a_problem_document_and_a_log_line(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as http:
        path = f"/v1/jobs/{submitted(http)['id']}/metrics"
        with session_scope() as session:
            session.execute(text("ALTER TABLE metrics RENAME TO gone"))
        answer = http.get(path)
    assert "gone" not in refused(answer, 500)["detail"]
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    mine = [line for line in lines if line.get("request_id") == answer.headers["x-request-id"]]
    assert [(line["event"], line["level"]) for line in mine] == [("request crashed", "error"), ("request", "info")]
    assert "UndefinedTable" in mine[0]["exception"]
    assert (mine[1]["method"], mine[1]["path"], mine[1]["status"]) == ("GET", path, 500)


def test_no_client_gets_a_201_for_an_uncommitted_job(http: httpx.Client) -> None:
    with session_scope() as session:
        session.execute(text("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END'"))
        trigger = "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON jobs DEFERRABLE INITIALLY DEFERRED"
        session.execute(text(f"{trigger} FOR EACH ROW EXECUTE FUNCTION refuse()"))
    refused(http.post("/v1/jobs", json=TRAIN), 500)
    assert http.get("/v1/jobs").json()["data"] == []


def test_a_broker_that_is_away_stops_no_submission(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    get_settings.cache_clear()
    job_steps.machine("w")
    assert submitted(http)["status"] == "queued"  # its wake-up comes with the sweep
    answer = http.get("/readyz")
    assert answer.status_code == 200  # nothing that the API does needs the broker
    found = answer.json()
    assert (found["ok"], found["checks"]) == (True, {"database": "ok", "broker": "unreachable"})


def test_an_unreachable_database_is_reported_and_survived(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "READY_SECONDS", 0.0)
    url = get_settings().need("database_url")
    monkeypatch.setenv("DATABASE_URL", f"postgresql://nobody:hush@127.0.0.1:{free_port()}/none")
    get_settings.cache_clear()
    answer = http.get("/v1/jobs")
    refused(answer, 503)
    assert answer.headers["retry-after"]
    assert "hush" not in answer.text
    assert http.get("/readyz").json()["checks"] == {"database": "unreachable", "broker": "ok"}
    assert http.get("/healthz").status_code == 200
    monkeypatch.setenv("DATABASE_URL", url)
    get_settings.cache_clear()
    found = http.get("/readyz").json()
    assert (found["ok"], found["checks"]) == (True, {"database": "ok", "broker": "ok"})


def test_requests_for_readiness_share_a_check(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anyone can send them, and each check opens two connections."""
    checks = count()
    monkeypatch.setattr(health, "READY_SECONDS", 3600.0)
    monkeypatch.setattr(health, "_database", lambda: f"check {next(checks)}")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: http.get("/readyz").json()["checks"]["database"], range(40)))
    assert answers == ["check 0"] * 40


def test_a_database_without_tables_is_not_ready(
    http: httpx.Client, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    get_settings.cache_clear()
    assert "alembic upgrade head" in http.get("/readyz").json()["checks"]["database"]


def test_the_sweep_runs_and_outlives_an_outage(
    database: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CALIBRL_SWEEP_SECONDS", "0.05")
    monkeypatch.setenv("CALIBRL_LEASE_SECONDS", "3")  # after an outage, the sweeper waits one lease
    monkeypatch.setenv("DATABASE_URL", f"postgresql://127.0.0.1:{free_port()}/none")
    get_settings.cache_clear()
    with serving() as http:
        eventually(lambda: "sweeper failed" in capfd.readouterr().err)
        monkeypatch.setenv("DATABASE_URL", database)
        get_settings.cache_clear()
        job = submitted(http)["id"]
        job_steps.claim("gone")
        with session_scope() as session:
            session.execute(text("UPDATE jobs SET lease_expires_at = now() - interval '1 second'"))
        eventually(lambda: http.get(f"/v1/jobs/{job}").json()["reason"] == "lost_worker")


def test_a_full_disk_of_the_database_is_named(http: httpx.Client) -> None:
    job_steps.run("CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE disk_full; END $$")
    job_steps.run("CREATE TRIGGER fill BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION fill()")
    answer = http.post("/v1/jobs", json=TRAIN)
    assert "The disk of the database is full" in refused(answer, 503)["detail"]
    assert http.get("/v1/jobs").json()["data"] == []
