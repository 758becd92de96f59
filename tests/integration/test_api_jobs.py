"""Lists of jobs, what may be changed of one, and forks, over real HTTP."""

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import event

from api.examples import EVALUATE, FORKS
from calibrl.schemas import Fork, JobFilter, JobStatus
from jobs import db
from jobs.db import session_scope
from jobs.files import pinned_checkpoints
from jobs.janitor import find
from jobs.repository import checkpoints, jobs
from jobs.settings import get_settings
from tests.support import job_steps
from tests.support.rest import named, refused, submitted

pytestmark = pytest.mark.integration
S = JobStatus
HOSTILE = [
    "%",
    "_",
    "\\",
    "/",
    "'",
    '"',
    "%%",
    "\\%",
    "/%",
    "'; DROP TABLE jobs; --",
    "' OR '1'='1",
    "$1",
    ":name",
    "%s",
    "\u2028",
    "é",
]


def listed(http: httpx.Client, **params: Any) -> list[str]:
    answer = http.get("/v1/jobs", params=params)
    assert answer.status_code == 200, answer.text
    return [job["name"] for job in answer.json()["data"]]


def test_a_list_leaves_out_long_fields(http: httpx.Client) -> None:
    job = submitted(http)
    (item,) = http.get("/v1/jobs").json()["data"]
    assert set(job) - set(item) == {"spec", "result", "notes", "workers"}
    assert {field: job[field] for field in item} == item


def test_jobs_are_filtered_by_their_properties(http: httpx.Client) -> None:
    http.put("/v1/projects/vision", json={})
    submitted(http, name="a", labels={"team": "vision", "stage": "one:two"})
    submitted(http, name="b", labels={"team": "vision"}, project="vision")
    submitted(http, name="c")
    http.post("/v1/jobs", json={**EVALUATE, "name": "d"})
    job_steps.run("UPDATE jobs SET status = 'failed', \"user\" = 'ann' WHERE name = 'a'")
    job_steps.run("UPDATE jobs SET created_at = '2026-01-01' WHERE name = 'b'")

    assert listed(http, label="team:vision") == ["a", "b"]
    assert listed(http, label=["team:vision", "stage:one:two"]) == ["a"]
    assert listed(http, label=["team:vision", "team:text"]) == []
    assert listed(http, status="failed") == ["a"]
    assert listed(http, status=["failed", "queued"], project="default") == ["d", "c", "a"]
    assert listed(http, kind="evaluate") == ["d"]
    assert listed(http, user="ann") == ["a"]
    assert listed(http, created_before="2026-06-01T00:00:00Z") == ["b"]
    assert listed(http, created_after="2026-01-01T00:00:00Z", created_before="2026-01-01T00:00:01Z") == ["b"]
    assert listed(http, created_after="2026-01-01T00:00:01+00:00", sort="name") == ["a", "c", "d"]
    with session_scope() as session:
        seen = jobs.page(session, JobFilter(), frozenset({"vision"}))
        assert [job.name for job in seen] == ["b"]
        assert jobs.page(session, JobFilter(), frozenset()) == []
    (hidden,) = http.get("/v1/jobs", params={"q": "a", "status": "failed"}).json()["data"]
    with session_scope() as session, pytest.raises(Exception, match="does not exist"):
        jobs.page(session, JobFilter(after=hidden["id"]), frozenset({"vision"}))


def test_text_is_searched_literally(http: httpx.Client) -> None:
    plain = submitted(http, name="plain")["id"]
    for number, text in enumerate(HOSTILE):
        id = submitted(http, name=f"number {number}")["id"]
        assert http.patch(f"/v1/jobs/{id}", json={"notes": f"before {text} behind"}).status_code == 200
    for number, text in enumerate(HOSTILE):
        found = listed(http, q=text)
        expected = [other for other, notes in enumerate(HOSTILE) if text.lower() in notes.lower()]
        assert sorted(found) == sorted(f"number {other}" for other in expected), text
        assert f"number {number}" in found
    assert listed(http, q="PLAIN") == ["plain"]
    for length in (1, 8, 9, 13, 36):
        assert "plain" in listed(http, q=plain[:length].upper())
    assert listed(http, q=plain[:9] + "-") == []
    assert listed(http, q=plain[:-1] + ("0" if plain[-1] != "0" else "1")) == []


@pytest.mark.parametrize("sort", ["created", "-created", "name", "-name", "status", "-status", "finished", "-finished"])
def test_pages_neither_skip_nor_repeat_while_jobs_are_added(http: httpx.Client, sort: str) -> None:
    ends = ["NULL", "'2026-02-01'", "'2026-01-01'"]
    known = []
    for number in range(9):
        id = submitted(http, name="bab"[number % 3] + str(number % 2))["id"]
        known.append(id)
        status = ("queued", "failed", "succeeded")[number % 3]
        job_steps.run(f"UPDATE jobs SET status = '{status}', finished_at = {ends[number % 3]} WHERE id = :id", id=id)
    whole = [job["id"] for job in http.get("/v1/jobs", params={"sort": sort}).json()["data"]]
    assert sorted(whole) == sorted(known)
    seen: list[str] = []
    after: dict[str, str] = {}
    for number in range(20):
        page = http.get("/v1/jobs", params={"sort": sort, "limit": 2, **after}).json()
        seen += [job["id"] for job in page["data"]]
        if not page["has_more"]:
            break
        after = {"after": page["data"][-1]["id"]}
        submitted(http, name=f"added-{number}") if number < 4 else None
    assert [id for id in seen if id in known] == whole
    assert len(set(seen)) == len(seen)


def test_each_sort_uses_its_named_field(http: httpx.Client) -> None:
    for name, status, end in [
        ("b", "failed", "'2026-02-01'"),
        ("a", "succeeded", "'2026-01-01'"),
        ("c", "queued", "NULL"),
    ]:
        id = submitted(http, name=name)["id"]
        job_steps.run(f"UPDATE jobs SET status = '{status}', finished_at = {end} WHERE id = :id", id=id)
    assert listed(http) == ["c", "a", "b"]
    assert listed(http, sort="created") == ["b", "a", "c"]
    assert listed(http, sort="-name") == ["c", "b", "a"]
    assert listed(http, sort="status") == ["b", "c", "a"]  # failed, queued, succeeded
    assert listed(http, sort="finished") == ["a", "b", "c"]
    assert listed(http, sort="-finished", status=["failed", "succeeded"]) == ["b", "a"]


def test_name_labels_and_notes_are_changed_also_after_the_end(http: httpx.Client) -> None:
    job = submitted(http, labels={"team": "vision", "old": "x"})
    path = f"/v1/jobs/{job['id']}"
    http.post(f"{path}/cancel")
    changes = {"labels": {"old": None, "new": "y"}, "notes": "a <b>note</b>", "name": "renamed"}
    changed = http.patch(path, json=changes).json()
    assert (changed["name"], changed["labels"]) == ("renamed", {"team": "vision", "new": "y"})
    assert (changed["notes"], changed["spec"]["name"]) == ("a <b>note</b>", "renamed")
    assert changed["spec"]["labels"] == changed["labels"]
    assert http.patch(path, json=changes).json() == changed  # nothing more happened
    events = http.get(f"{path}/events").json()["data"]
    assert [(event["type"], event["message"]) for event in events[2:]] == [
        ("name", "digits-calibrl is now renamed"),
        ("labels", "team=vision, new=y"),
        ("notes", None),
    ]
    refused(http.patch(path, json={"priority": "high", "notes": "not kept"}), 409)
    assert http.get(path).json() == changed
    many = {f"key-{number}": "x" for number in range(31)}
    assert named(http.patch(path, json={"labels": many})) == ["labels"]  # 33 they would be


def test_a_fork_starts_from_a_checkpoint_that_its_parent_can_remove(http: httpx.Client) -> None:
    job_steps.machine("w")
    parent = UUID(submitted(http, labels={"team": "x"})["id"])
    claimed = job_steps.claim()
    job_steps.checkpoint(parent, 10, best=True)
    path = job_steps.checkpoint(parent, 20)
    changes = {"optimizer": {"lr": 1e-5}, "algorithm": {"type": "grpo"}, "validation": None}
    answer = http.post(f"/v1/jobs/{parent}/fork", json={"checkpoint": 20, "changes": changes})
    fork = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"/v1/jobs/{fork['id']}")
    assert (fork["forked_from"], fork["forked_step"], fork["name"]) == (str(parent), 20, "digits-calibrl-fork")
    assert (fork["status"], fork["depends_on"]) == ("queued", [])  # though its parent still runs
    assert fork["spec"]["model"]["checkpoint"] == 20
    assert (fork["spec"]["optimizer"]["lr"], fork["spec"]["algorithm"]["type"]) == (1e-5, "grpo")
    assert (fork["spec"]["validation"], fork["labels"]) == (None, {"team": "x"})

    for file in path.iterdir():
        file.unlink()
    path.rmdir()
    with session_scope() as session:
        checkpoints.record(session, parent, 30, str(path.with_name("step-000030")), False, {}, [str(path)])
    begins = Path(job_steps.claim().config["model"]["path"])
    assert (begins / "model.safetensors").read_text() == "weights"
    assert begins == pinned_checkpoints.find_pinned(UUID(fork["id"]), parent, 20)
    assert find(get_settings()) == []
    job_steps.finish(claimed, S.FAILED)
    best = http.post(f"/v1/jobs/{parent}/fork", json={"name": "again"}).json()
    assert (best["name"], best["forked_step"], best["status"]) == ("again", 10, "queued")


def test_repeated_fork_request_returns_first_fork_after_checkpoint_removal(http: httpx.Client) -> None:
    parent = submitted(http)["id"]
    job_steps.checkpoint(UUID(parent), 10)
    path, headers = f"/v1/jobs/{parent}/fork", {"Idempotency-Key": "a-fork"}
    first = http.post(path, json={"checkpoint": 10}, headers=headers)
    job_steps.run("DELETE FROM checkpoints")
    again = http.post(path, json={"checkpoint": 10}, headers=headers)
    assert (first.status_code, again.status_code, again.content) == (201, 201, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    refused(http.post(path, json={"checkpoint": 10}), 422)


def test_jobs_derived_from_a_job_are_listed(http: httpx.Client) -> None:
    parent = submitted(http)["id"]
    job_steps.checkpoint(UUID(parent), 10)
    fork = http.post(f"/v1/jobs/{parent}/fork", json={"name": "fork"}).json()
    step = EVALUATE | {"name": "of-a-step", "models": [{"from_job": parent, "checkpoint": 10}]}
    best = EVALUATE | {"name": "of-the-best", "models": [{"from_job": parent}]}
    for spec in (step, best, EVALUATE | {"name": "of-another"}):
        assert http.post("/v1/jobs", json=spec).status_code == 201
    assert sorted(listed(http, derived_from=parent)) == ["fork", "of-a-step", "of-the-best"]
    assert listed(http, derived_from=fork["id"]) == []
    assert sorted(listed(http, derived_from=[parent, fork["id"]])) == ["fork", "of-a-step", "of-the-best"]


def test_jobs_are_listed_by_their_ids(http: httpx.Client) -> None:
    a, b, _ = (submitted(http, name=name)["id"] for name in "abc")
    assert sorted(listed(http, ids=[a, b, str(uuid4())])) == ["a", "b"]
    assert listed(http, ids=[a, b], q="b") == ["b"]
    assert http.get("/v1/jobs", params={"ids": [str(uuid4()) for _ in range(101)]}).status_code == 422


def test_a_fork_of_an_evaluation_changes_no_model(http: httpx.Client) -> None:
    first = http.post("/v1/jobs", json=EVALUATE).json()
    fork = http.post(f"/v1/jobs/{first['id']}/fork", json={"changes": {"rollout": {"samples": 2}}}).json()
    assert (fork["forked_from"], fork["forked_step"]) == (first["id"], None)
    assert fork["spec"]["models"] == first["spec"]["models"]
    assert fork["spec"]["rollout"]["samples"] == 2


def test_invalid_forks_are_refused(http: httpx.Client) -> None:
    parent = UUID(submitted(http)["id"])
    fork = f"/v1/jobs/{parent}/fork"
    assert "it has no checkpoint" in refused(http.post(fork, json={}), 422)["errors"][0]["message"]
    job_steps.checkpoint(parent, 10)
    problem = refused(http.post(fork, json={"checkpoint": 15}), 422)
    assert problem["errors"] == [
        {"field": "checkpoint", "message": f"job {parent} has no checkpoint of step 15: available steps: 10"}
    ]
    bad: list[tuple[Any, list[str]]] = [
        ({"checkpoint": "first"}, ["checkpoint"]),
        ({"checkpoint": -1}, ["checkpoint"]),
        ({"changes": {"steps": 0}}, ["steps"]),
        ({"changes": {"algorithm": {"type": "sft", "clip_low": 0.1}}}, ["algorithm.clip_low"]),
        ({"changes": {"steps": None}}, ["steps"]),
        ({"changes": {"data": {"path": "relative.jsonl"}}}, ["data.path"]),
        ({"changes": []}, ["changes"]),
        ({"step": 10}, ["step"]),
    ]
    for body, fields in bad:
        assert named(http.post(fork, json=body)) == fields, body
    refused(http.post(f"/v1/jobs/{uuid4()}/fork", json={}), 404)
    assert len(http.get("/v1/jobs").json()["data"]) == 1
    for example in FORKS.values():
        Fork.model_validate(example["value"])


def test_a_spec_may_name_a_step_that_is_there(http: httpx.Client) -> None:
    parent = UUID(submitted(http)["id"])
    job_steps.checkpoint(parent, 10)
    http.post(f"/v1/jobs/{parent}/cancel")
    made = submitted(http, model={"from_job": str(parent), "checkpoint": 10})
    assert (made["status"], made["depends_on"], made["forked_from"]) == ("queued", [], None)
    body = {**EVALUATE, "models": [{"from_job": str(parent), "checkpoint": step} for step in (10, 11)]}
    assert named(http.post("/v1/jobs", json=body)) == ["models.1.checkpoint"]
    body["models"] = [{"from_job": str(parent), "checkpoint": 10}, {"from_job": str(uuid4()), "checkpoint": 1}]
    assert named(http.post("/v1/jobs", json=body)) == ["models.1.from_job"]


def test_ten_thousand_jobs_are_listed_by_index(http: httpx.Client) -> None:
    template = submitted(http)["id"]
    job_steps.run(
        """
        INSERT INTO jobs SELECT made.* FROM jobs, generate_series(1, 10000) n,
            LATERAL jsonb_populate_record(jobs, jsonb_build_object(
                'id', gen_random_uuid(), 'name', 'job ' || n, 'created_at', now() - n * interval '1 minute',
                'status', CASE WHEN n % 100 = 0 THEN 'failed' ELSE 'succeeded' END,
                'finished_at', now() - n * interval '30 s', 'labels', jsonb_build_object('n', n::text))) made
        WHERE jobs.id = :id
        """,
        id=template,
    )
    job_steps.run("ANALYZE jobs")
    middle = http.get("/v1/jobs", params={"q": "job 5000"}).json()["data"][0]["id"]
    for sort, index in {"created": "newest", "name": "by_name", "status": "by_status", "finished": "by_end"}.items():
        for sign in ("", "-"):
            plan = query_plan(JobFilter(sort=sign + sort, after=middle))
            assert f"Scan using ix_jobs_{index} on jobs" in plan or f"Backward using ix_jobs_{index}" in plan, plan
            sorted_by = {line.partition("Sort Key: ")[2] for line in plan.splitlines() if "Sort Key: " in line}
            assert sorted_by <= {"events.id"}, plan  # the few alerts of each job on the page, never the jobs
    assert "ix_jobs_by_label" in query_plan(JobFilter(label=["n:77"]))
    assert "ix_jobs_by_status" in query_plan(JobFilter(status=[S.CANCELLED]))


def query_plan(wanted: JobFilter) -> str:
    """Return the database's query plan for a page."""
    statements: list[tuple[str, Any]] = []
    with session_scope() as session:
        connection = session.connection()
        event.listen(connection, "before_cursor_execute", lambda *what: statements.append((what[2], what[3])))
        jobs.page(session, wanted)
        (sql, args), *_ = (one for one in statements if "FROM jobs" in one[0] and "LIMIT" in one[0])
        return "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN ANALYZE {sql}", args))


def test_a_list_has_the_fields_of_the_specs_that_are_asked_for(http: httpx.Client) -> None:
    submitted(http)
    names = ("algorithm.type", "rewards.0.type", "optimizer.lr", "no.such")
    (job,) = http.get("/v1/jobs", params={"fields": names}).json()["data"]
    spec = http.get(f"/v1/jobs/{job['id']}").json()["spec"]
    assert job["fields"] == {
        "algorithm.type": spec["algorithm"]["type"],
        "rewards.0.type": spec["rewards"][0]["type"],
        "optimizer.lr": spec["optimizer"]["lr"],
    }
    assert http.get("/v1/jobs").json()["data"][0]["fields"] == {}
    assert http.get("/v1/jobs", params={"fields": "a..b"}).status_code == 422


def test_a_search_that_takes_long_is_ended(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted(http)
    assert len(http.get("/v1/jobs", params={"q": "a"}).json()["data"]) == 1
    monkeypatch.setattr(db, "SEARCH_SECONDS", 0.3)
    with session_scope() as session:
        session.connection().exec_driver_sql("LOCK TABLE jobs")  # as slow as many rows
        (fault,) = refused(http.get("/v1/jobs", params={"q": "a"}), 422)["errors"]
    assert fault["field"] == "q" and fault["message"].startswith("the search took longer than 0.3 s: also filter")
