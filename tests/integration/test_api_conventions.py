"""Conventions of HTTP: methods, headers, conditions of changes, browsers of other sites, and removal."""

import gzip
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import httpx
import pytest

from api.examples import EVALUATE, TRAIN
from jobs.db import session_scope
from jobs.repository import access, images
from jobs.settings import get_settings
from tests.support import job_steps
from tests.support.api_users import ApiUsers
from tests.support.rest import named, refused, serving, submitted
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration
ATTEMPT = (
    "INSERT INTO attempts (job_id, number, worker, started_at, finished_at, status, first_step, events_offset, "
    "log_offset) VALUES (:id, 1, 'w', now() - interval '20 seconds', now(), 'succeeded', 0, 0, 0)"
)


def test_unknown_parameters_are_refused_everywhere(http: httpx.Client) -> None:
    run = f"/v1/jobs/{submitted(http)['id']}"
    for path in ("/v1/usage", "/v1/me", "/v1/keys", run, f"{run}/metrics", "/v1/datasets", "/v1/fine_tuning/jobs"):
        answer = http.get(path, params={"colour": "red"})
        assert answer.status_code in (400, 422) and "colour" in answer.text, path
    (fault,) = refused(http.get(f"{run}/metrics", params={"form": "csv"}), 422)["errors"]
    assert fault["message"] == "Unknown parameter: did you mean format?"
    assert named(http.post("/v1/jobs", params={"dry": "1"}, json=TRAIN)) == ["dry"]
    assert http.get("/v1/fine_tuning/jobs", params={"metadata[a]": "b"}).status_code == 200


def test_head_is_get_without_the_body_and_allow_is_complete(http: httpx.Client) -> None:
    job = submitted(http)["id"]
    for path in ("/healthz", "/readyz", "/v1/jobs", f"/v1/jobs/{job}", "/docs", f"/v1/jobs/{job}/stream"):
        answer = http.head(path)
        assert (answer.status_code, answer.content) == (200, b""), path
    assert http.head("/v1/jobs/none").status_code == 422
    assert http.put("/v1/jobs").headers["allow"] == "GET, HEAD, POST"
    assert http.put(f"/v1/jobs/{job}").headers["allow"] == "GET, HEAD, PATCH, DELETE"


def test_a_change_with_an_old_tag_is_refused(http: httpx.Client) -> None:
    path = f"/v1/jobs/{submitted(http)['id']}"
    tag = http.get(path).headers["etag"]
    changed = http.patch(path, json={"notes": "mine"}, headers={"If-Match": tag})
    assert changed.status_code == 200 and changed.headers["etag"] != tag
    assert refused(http.patch(path, json={"notes": "yours"}, headers={"If-Match": tag}), 412)["type"].endswith(
        "changed"
    )
    assert http.get(path).json()["notes"] == "mine"
    assert http.patch(path, json={"notes": "yours"}).status_code == 200
    tag = http.get(path).headers["etag"]
    job_steps.run("UPDATE jobs SET step = 5")
    assert http.get(path).headers["etag"] == tag  # progress is not edited
    project = "/v1/projects/default"
    tag = http.get(project).headers["etag"]
    assert http.put(project, json={"max_run_hours": 2}, headers={"If-Match": tag}).status_code == 200
    refused(http.put(project, json={"weight": 3}, headers={"If-Match": tag}), 412)
    refused(http.put("/v1/projects/new", json={}, headers={"If-Match": "*"}), 412)
    assert http.put("/v1/projects/new", json={}, headers={"If-None-Match": "*"}).status_code == 200
    refused(http.put("/v1/projects/new", json={}, headers={"If-None-Match": "*"}), 412)


def test_a_dataset_is_renamed_if_its_tag_is_the_same(http: httpx.Client) -> None:
    made = http.post("/v1/datasets", json={"name": "old", "hub": "hiyouga/geometry3k"}).json()
    path = f"/v1/datasets/{made['id']}"
    tag = http.get(path).headers["etag"]
    assert http.patch(path, json={"name": "new"}, headers={"If-Match": tag}).json() == {**made, "name": "new"}
    refused(http.patch(path, json={"name": "third"}, headers={"If-Match": tag}), 412)
    assert named(http.patch(path, json={"name": ""})) == ["name"]
    assert http.get(path).json()["name"] == "new"


NOT_JSON = (b"a: !!set {b}", b"a: !!timestamp 2020-01-01", b"a: !!binary aGk=", b"a: 0x" + b"f" * 5000)
NOT_VALUES = (
    b"a: !!int x",
    b"a: !!float x",
    b"a: !!bool x",
    b"a: !!timestamp x",
    b"a: !!map [b]",
    b'a: "\\UFFFFFFFF"',
    b"a: " + b"9" * 5000,
)


def test_specs_are_taken_as_yaml(http: httpx.Client) -> None:
    yaml = {"Content-Type": "application/yaml; charset=utf-8", "Idempotency-Key": "once"}
    text = "# mine\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in TRAIN.items())
    made = http.post("/v1/jobs", content=text, headers=yaml)
    assert made.status_code == 201, made.text
    assert made.json()["spec"] == http.post("/v1/jobs", json=TRAIN).json()["spec"]
    assert http.post("/v1/jobs", content=text, headers=yaml).json()["id"] == made.json()["id"]
    yaml = {"Content-Type": "application/yaml"}
    assert named(http.post("/v1/jobs", content=text + "colour: red", headers=yaml)) == ["colour"]
    for body, status, text in (
        (b"kind: [train", 400, "not YAML: line 1, column 13: "),
        (b"a: &x [1]\nb: *x", 400, "line 2, column 4: aliases are not accepted here"),
        (b"\xff", 400, "not UTF-8 text"),
        (b"[" * 9000, 400, "nested too deeply"),
        (b"a: 1\n" * 20_001, 413, "at most 100,000 bytes"),
        *((body, 400, "JSON has no form for a value") for body in NOT_JSON),
        *((body, 400, "a value does not fit its tag") for body in NOT_VALUES),
    ):
        assert text in refused(http.post("/v1/jobs", content=body, headers=yaml), status)["detail"]
    refused(http.post("/v1/jobs", content="kind: train", headers=yaml | {"Authorization": "Bearer no"}), 401)
    assert http.request("GET", "/v1/me", content="[", headers=yaml).status_code == 200  # not parsed


def test_headers_of_limits_version_and_compression(http: httpx.Client) -> None:
    left = int(http.get("/v1/me").headers["ratelimit"].removeprefix('"user";r=').partition(";")[0])
    assert 390 <= left < 400
    assert http.get("/v1/me").headers["ratelimit-policy"] == '"user";q=400;w=4'
    health = http.get("/healthz")
    assert (
        health.json()["version"]
        == health.headers["x-calibrl-version"]
        == http.get("/openapi.json").json()["info"]["version"]
    )
    for _ in range(5):
        submitted(http)
    raw = http.build_request("GET", "/v1/jobs", headers={"Accept-Encoding": "gzip"})
    answer = http.send(raw, stream=True)
    assert answer.headers["content-encoding"] == "gzip" and b"digits" in gzip.decompress(b"".join(answer.iter_raw()))


def test_pages_of_other_sites_need_a_setting(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    site = {"Origin": "https://lab.example.com"}
    asked = site | {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    with serving() as http:
        assert "access-control-allow-origin" not in http.get("/v1/me", headers=site).headers
    monkeypatch.setenv("CALIBRL_ALLOWED_ORIGINS", site["Origin"])
    get_settings.cache_clear()
    with serving() as http:
        http.headers.pop("authorization")
        before = http.options("/v1/jobs", headers=asked)
        assert (before.status_code, before.headers["access-control-allow-origin"]) == (200, site["Origin"])
        assert refused(http.get("/v1/jobs", headers=site), 401)
        assert http.get("/v1/jobs", headers=site).headers["access-control-allow-origin"] == site["Origin"]
        other = http.get("/healthz", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def test_the_page_of_the_routes_loads_nothing(http: httpx.Client) -> None:
    page = http.get("/docs")
    assert "POST /v1/pipelines" in page.text and "<script" not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert http.get("/redoc").status_code == 404


def chain(**changes: Any) -> list[dict[str, Any]]:
    trained = {**EVALUATE, "models": [{"from_job": f"@{TRAIN['name']}"}]}
    return [TRAIN, trained | changes]


def test_a_pipeline_is_submitted_as_a_whole_or_not_at_all(http: httpx.Client) -> None:
    first, second = http.post("/v1/pipelines", json={"jobs": chain()}).json()["data"]
    assert (first["status"], second["status"], second["depends_on"]) == ("queued", "waiting", [first["id"]])
    assert second["spec"]["models"][0]["from_job"] == first["id"]
    for changes, field in (
        ({"models": [{"from_job": "@none"}]}, "jobs.1.models.0.from_job"),
        ({"rollout": {"sample": 3}}, "jobs.1.rollout.sample"),
        ({"project": "none"}, "jobs.1.project"),
        ({"name": TRAIN["name"]}, "jobs.1.name"),
    ):
        assert named(http.post("/v1/pipelines", json={"jobs": chain(**changes)})) == [field]
    assert len(http.get("/v1/jobs").json()["data"]) == 2
    misspelt = http.post("/v1/pipelines", json={"jobs": chain(rollout={"sample": 3})})
    assert refused(misspelt, 422)["errors"][0]["message"] == "Unknown field: did you mean samples?"


def test_the_only_project_of_a_user_is_chosen(http: httpx.Client) -> None:
    with ApiUsers(http) as users:
        http.put("/v1/projects/vision", json={})
        http.put("/v1/projects/sound", json={})
        one, two = users.add("one", {"vision": "member"}), users.add("two", {"vision": "member", "sound": "member"})
        assert users.ask(one, "POST", "/v1/jobs", json=TRAIN).json()["project"] == "vision"
        assert users.ask(one, "POST", "/v1/jobs:plan", json=TRAIN).status_code == 200
        hub = {"name": "d", "hub": "a/b"}
        assert users.ask(one, "POST", "/v1/datasets", json=hub).json()["project"] == "vision"
        refusal = users.ask(two, "POST", "/v1/jobs", json=TRAIN)
        (fault,) = refused(refusal, 422)["errors"]
        assert fault == {"field": "project", "message": "you belong to sound, vision: name one"}


def test_what_is_created_can_be_removed(http: httpx.Client) -> None:
    http.put("/v1/projects/old", json={})
    first = submitted(http, project="old")["id"]
    waits = submitted(http, project="old", model={"from_job": first})["id"]
    assert "cancel it first" in refused(http.delete(f"/v1/jobs/{first}"), 409)["detail"]
    refused(http.delete("/v1/projects/old"), 409)
    job_steps.run("UPDATE jobs SET status = 'succeeded', finished_at = now() WHERE id = :id", id=first)
    assert f"Job {waits} depends on" in refused(http.delete(f"/v1/jobs/{first}"), 409)["detail"]
    for job in (waits, first):
        http.post(f"/v1/jobs/{job}/cancel")
        assert http.delete(f"/v1/jobs/{job}").status_code == 204
        refused(http.get(f"/v1/jobs/{job}"), 404)
    assert http.delete("/v1/projects/old").status_code == 204
    refused(http.delete("/v1/projects/old"), 404)
    location = http.post("/v1/users", json={"name": "ada"}).headers["location"]
    key = http.post("/v1/keys", json={"name": "k", "user": "ada"})
    assert http.get(key.headers["location"]).json()["user"] == "ada"
    assert http.delete(location).status_code == 204
    refused(http.get(location), 404)
    assert http.get(key.headers["location"]).status_code == 404
    assert "owns the key" in refused(http.delete("/v1/users/admin"), 409)["detail"]
    refused(http.delete("/v1/workers/none"), 404)
    job_steps.machine("w")
    assert "stop its worker first" in refused(http.delete("/v1/workers/w"), 409)["detail"]
    job_steps.run("UPDATE workers SET status = 'offline'")
    assert http.delete("/v1/workers/w").status_code == 204
    assert http.get("/v1/workers").json()["data"] == []


def test_removal_of_a_job_does_not_give_back_a_budget(http: httpx.Client) -> None:
    with ApiUsers(http) as users:
        member = users.add("ada", {"default": "member"})
        job = submitted(http)["id"]
        job_steps.machine("w")
        job_steps.run("UPDATE jobs SET status = 'succeeded', finished_at = now() WHERE id = :id", id=job)
        job_steps.run(ATTEMPT, id=job)
        used = http.get("/v1/usage").json()
        refusal = users.ask(member, "DELETE", f"/v1/jobs/{job}")
        assert "still count for budgets" in refused(refusal, 409)["detail"]
        assert http.get("/v1/usage").json() == used
        job_steps.run("UPDATE attempts SET started_at = '2020-01-01', finished_at = '2020-01-02'")
        assert users.ask(member, "DELETE", f"/v1/jobs/{job}").status_code == 204


def test_a_removed_job_leaves_only_the_images_that_others_show(http: httpx.Client) -> None:
    first, other = submitted(http)["id"], submitted(http)["id"]
    with session_scope() as session:
        for job, name in ((first, "own"), (first, "shared"), (other, "shared")):
            images.put(session, UUID(job), name, b"png")
    http.post(f"/v1/jobs/{first}/cancel")
    assert http.delete(f"/v1/jobs/{first}").status_code == 204
    assert job_steps.run_count("SELECT count(*) FROM images") == 1
    with session_scope() as session:
        assert images.get(session, UUID(other), "shared") == b"png"


def test_a_change_of_a_user_waits_for_another_before_it_reads_the_tag(http: httpx.Client) -> None:
    path = http.post("/v1/users", json={"name": "ada"}).headers["location"]
    headers = {"If-Match": http.get(path).headers["etag"]}
    with ThreadPoolExecutor(1) as pool:
        with session_scope() as session:
            access.lock_user(session, "ada").admin = True
            session.flush()
            second = pool.submit(http.patch, path, json={"active": False}, headers=headers)
            eventually(lambda: job_steps.run_count("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        refused(second.result(), 412)
    assert http.get(path).json()["active"] is True


def test_the_plan_warns_of_labels_that_no_machine_has(http: httpx.Client) -> None:
    job_steps.machine("w")
    wanted = TRAIN | {"resources": {"labels": {"site": "c"}}}
    notices = http.post("/v1/jobs:plan", json=wanted).json()["warnings"]
    (found,) = [notice["message"] for notice in notices if notice["field"] == "resources.labels"]
    assert found == "no machine has the labels site=c: the job waits until one has them"


def test_the_plan_counts_the_steps(http: httpx.Client) -> None:
    job_steps.machine("w")
    done = submitted(http, steps=10)["id"]
    job_steps.run("UPDATE jobs SET status = 'succeeded', step = 10 WHERE id = :id", id=done)
    job_steps.run(ATTEMPT, id=done)
    queue = http.post("/v1/jobs:plan", json=TRAIN | {"steps": 280}).json()["queue"]
    assert (round(queue["expected_seconds"]), queue["by_steps"]) == (560, True)
