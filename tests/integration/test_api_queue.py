"""The queue over real HTTP: every endpoint, and what it refuses, with nothing changed by a refusal."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text

from api.examples import CHANGES, DRAINS, PROJECTS, TRAIN
from api.main import create_app
from calibrl.schemas import Drain, JobChanges, JobStatus, ProjectSettings
from jobs.db import session_scope
from tests.support import job_steps
from tests.support.rest import named, refused, submitted
from tests.support.waiting import LIMIT_SECONDS, eventually

pytestmark = pytest.mark.integration
S = JobStatus
Unchanged = Callable[[], None]
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def unchanged(http: httpx.Client) -> Iterator[Callable[[], None]]:
    """Yield a function to call after the setup: from then to the test's end, no answer of the API may change."""
    before: list[dict[str, Any]] = []
    yield lambda: before.append(everything(http))
    assert before and everything(http) == before[0]


def everything(http: httpx.Client) -> dict[str, Any]:
    """Return all jobs, their events, the queue, machines and projects, without estimated start times."""
    found = {path: http.get(f"/v1/{path}").json()["data"] for path in ("jobs", "queue", "workers", "projects")}
    found["events"] = [http.get(f"/v1/jobs/{job['id']}/events").json()["data"] for job in found["jobs"]]
    for entry in found["queue"]:
        del entry["estimated_start"]
    return found


def spec(**changes: Any) -> dict[str, Any]:
    return {**TRAIN, **changes}


def ask(http: httpx.Client, job_id: str, verb: str) -> str:
    answer = http.post(f"/v1/jobs/{job_id}/{verb}")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["status"])


def test_a_job_is_paused_resumed_cancelled_and_retried(http: httpx.Client) -> None:
    id = submitted(http)["id"]
    course = [ask(http, id, verb) for verb in ("pause", "resume", "cancel", "retry")]
    assert course == ["paused", "queued", "cancelled", "queued"]
    claimed = job_steps.claim()
    assert ask(http, id, "pause") == "pausing"
    job_steps.finish(claimed, S.PAUSED)
    assert http.get(f"/v1/jobs/{id}").json()["status"] == "paused"
    events = http.get(f"/v1/jobs/{id}/events").json()["data"]
    steps = ["submitted", "paused", "resumed", "cancelled", "retried", "claimed", "pausing", "paused"]
    assert [event["type"] for event in events] == steps


def test_a_higher_priority_is_first(http: httpx.Client) -> None:
    job_steps.machine("w", cpu_slots=1)
    first, second = submitted(http)["id"], submitted(http)["id"]
    changed = http.patch(f"/v1/jobs/{second}", json={"priority": "high"}).json()
    assert (changed["priority"], changed["spec"]["priority"]) == ("high", "high")
    line = http.get("/v1/queue").json()["data"]
    assert [(entry["job_id"], entry["position"]) for entry in line] == [(second, 1), (first, 2)]


def test_the_queue_gives_each_waiting_jobs_reason(http: httpx.Client) -> None:
    job_steps.machine("w", cpu_slots=1)
    first = submitted(http)["id"]
    second = submitted(http, depends_on=[first])["id"]
    third = submitted(http)["id"]
    ask(http, third, "pause")
    http.put("/v1/projects/other", json={})
    other = submitted(http, project="other", limits={"timeout_seconds": 60})["id"]
    found = {entry["job_id"]: entry for entry in http.get("/v1/queue").json()["data"]}
    shown = {id: (entry["position"], entry["reason"]) for id, entry in found.items()}
    assert shown == {first: (1, None), other: (2, "busy"), second: (None, "waiting"), third: (None, "paused")}
    assert found[first]["explanation"] == "starts on w now"
    assert found[other]["explanation"] == "waiting for a free CPU slot"
    assert found[third]["explanation"] == "is paused; resume it to put it back in the queue"
    assert [entry["job_id"] for entry in http.get("/v1/queue?project=other").json()["data"]] == [other]
    assert http.get("/v1/queue?project=nobodys").json() == {"data": [], "has_more": False}


def test_a_machine_is_drained_with_a_body_or_without(http: httpx.Client) -> None:
    job_steps.machine("gpu 1", gpus=1, labels={"site": "b"})
    (machine,) = http.get("/v1/workers").json()["data"]
    assert (machine["status"], machine["cpu_slots"], machine["labels"]) == ("online", 20, {"site": "b"})
    assert [(gpu["index"], gpu["clean"], gpu["job_id"]) for gpu in machine["gpus"]] == [(0, True, None)]
    drained: list[tuple[dict[str, Any], str]] = [
        ({}, "draining"),
        ({"json": {"now": True}}, "stopping"),
        ({"json": {}}, "draining"),
        ({"content": b'{"now": true}', "headers": JSON}, "stopping"),
    ]
    for body, status in drained:
        assert http.post("/v1/workers/gpu%201/drain", **body).json()["status"] == status
    assert http.post("/v1/workers/gpu%201/undrain").json()["status"] == "online"


def test_projects_are_added_changed_and_read(http: httpx.Client) -> None:
    nothing = dict.fromkeys(("max_gpus", "max_queued", "budget_slot_hours", "user_budget_slot_hours", "retention_days"))
    added = http.put("/v1/projects/vision", json={"weight": 2, "max_gpus": 4}).json()
    assert {name: added[name] for name in ("slug", "weight", *nothing)} == {
        "slug": "vision",
        "weight": 2,
        **nothing,
        "max_gpus": 4,
    }
    changed = http.put("/v1/projects/vision", json={"retention_days": 30}).json()
    assert (changed["weight"], changed["max_gpus"], changed["retention_days"]) == (1, None, 30)
    assert http.get("/v1/projects/vision").json() == changed
    assert [one["slug"] for one in http.get("/v1/projects").json()["data"]] == ["default", "vision"]
    first = http.get("/v1/projects", params={"limit": 1}).json()
    assert ([one["slug"] for one in first["data"]], first["has_more"]) == (["default"], True)
    assert http.get("/v1/projects?after=default").json()["data"] == [changed]


def test_changes_of_a_project_at_the_same_time_both_count(http: httpx.Client) -> None:
    project = "/v1/projects/default"
    with session_scope() as session:
        session.execute(text("UPDATE projects SET weight = 2"))
        changing = Thread(target=lambda: http.patch(project, json={"max_gpus": 4}))
        changing.start()
        eventually(lambda: job_steps.run_count("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
    changing.join(LIMIT_SECONDS)
    changed = http.get(project).json()
    assert (changed["weight"], changed["max_gpus"]) == (2, 4)


def test_limits_that_a_change_omits_stay(http: httpx.Client) -> None:
    http.put("/v1/projects/vision", json={"weight": 2, "max_gpus": 4, "retention_days": 30})
    answer = http.patch("/v1/projects/vision", json={"max_gpus": None})
    changed = answer.json()
    assert (changed["weight"], changed["max_gpus"], changed["retention_days"]) == (2, None, 30)
    assert http.patch(
        "/v1/projects/vision", json={"weight": 3}, headers={"If-Match": answer.headers["etag"]}
    ).is_success
    refused(http.patch("/v1/projects/vision", json={"weight": 4}, headers={"If-Match": answer.headers["etag"]}), 412)
    assert http.get("/v1/projects/vision").json()["weight"] == 3
    refused(http.patch("/v1/projects/none", json={}), 404)


@pytest.mark.parametrize(
    ("before", "after", "delayed"),
    [(None, 30, True), (30, 29, True), (30, 30, False), (30, 31, False), (30, None, False)],
)
def test_a_shorter_retention_takes_effect_after_a_week(
    http: httpx.Client, before: int | None, after: int | None, delayed: bool
) -> None:
    added = http.put("/v1/projects/vision", json={"retention_days": before}).json()
    assert added["retention_from"] is None  # a new project has no data
    for request in (http.patch, http.put):
        job_steps.run(
            "UPDATE projects SET retention_from = NULL, retention_days = :days WHERE slug = 'vision'", days=before
        )
        begins = request("/v1/projects/vision", json={"retention_days": after}).json()["retention_from"]
        if not delayed:
            assert begins is None
        else:
            left = datetime.fromisoformat(begins) - datetime.now(UTC)
            assert timedelta(days=6.9) < left <= timedelta(days=7)


def test_usage_is_reported_per_project_and_user(http: httpx.Client) -> None:
    assert http.get("/v1/usage").json() == {"data": [], "has_more": False}
    http.put("/v1/projects/default", json={"budget_slot_hours": 10})
    submitted(http)
    claimed = job_steps.claim()
    job_steps.finish(claimed, S.SUCCEEDED)
    half_an_hour = "UPDATE attempts SET started_at = date_trunc('month', now()), finished_at = "
    job_steps.run(f"{half_an_hour} date_trunc('month', now()) + interval '30 minutes'")
    (used,) = http.get("/v1/usage").json()["data"]
    assert used == {
        "project": "default",
        "user": "admin",
        "slot_hours": 0.5,
        "gpu_hours": 0.0,
        "budget_slot_hours": 10.0,
    }


def test_more_gpus_than_any_machine_has(http: httpx.Client, unchanged: Unchanged) -> None:
    job_steps.machine("w", gpus=2)
    unchanged()
    answer = http.post("/v1/jobs", json=spec(resources={"gpus": 3}))
    assert refused(answer, 422)["errors"] == [
        {"field": "resources.gpus", "message": "3 GPUs requested, but the largest machine has 2"}
    ]


def test_dependencies_that_do_not_exist_or_will_never_succeed(http: httpx.Client, unchanged: Unchanged) -> None:
    ended = submitted(http)["id"]
    ask(http, ended, "cancel")
    unchanged()
    unknown = str(uuid4())
    answer = http.post("/v1/jobs", json=spec(depends_on=[unknown, ended]))
    assert refused(answer, 422)["errors"] == [
        {"field": "depends_on.0", "message": f"job {unknown} does not exist"},
        {"field": "depends_on.1", "message": f"job {ended} is cancelled and cannot succeed any more"},
    ]


def test_no_request_can_make_a_cycle(http: httpx.Client, unchanged: Unchanged) -> None:
    """A job names jobs that exist, and what it names is never changed: all that comes near a cycle is refused."""
    first = submitted(http)["id"]
    second = submitted(http, depends_on=[first])["id"]
    unchanged()
    mine = str(uuid4())
    assert named(http.post("/v1/jobs", json=spec(id=mine, depends_on=[mine]))) == ["id"]  # a client cannot set the id
    assert named(http.post("/v1/jobs", json=spec(depends_on=[mine]))) == ["depends_on.0"]  # nor a guess at it
    for changes in ({"depends_on": [second]}, {"priority": "high", "depends_on": [second]}):
        assert "depends_on" in named(http.patch(f"/v1/jobs/{first}", json=changes))
    refused(http.put(f"/v1/jobs/{first}", json=spec(depends_on=[second])), 405)


def test_actions_on_an_ended_job_are_refused(http: httpx.Client, unchanged: Unchanged) -> None:
    id = submitted(http)["id"]
    job_steps.finish(job_steps.claim(), S.SUCCEEDED)
    unchanged()
    for verb in ("resume", "pause", "cancel"):
        detail = refused(http.post(f"/v1/jobs/{id}/{verb}"), 409)["detail"]
        assert detail == f"Job {id} has already ended: it is succeeded."
    detail = refused(http.post(f"/v1/jobs/{id}/retry"), 409)["detail"]
    assert detail == f"Job {id} is succeeded: only a failed or cancelled job can be retried."
    refused(http.patch(f"/v1/jobs/{id}", json={"priority": "high"}), 409)


@pytest.mark.parametrize(
    ("verb", "running", "says"),
    [
        ("cancel", False, "has already ended: it is cancelled"),
        ("cancel", True, "is already being cancelled"),
        ("pause", False, "is already paused"),
        ("pause", True, "is already pausing"),
    ],
)
def test_asking_twice(http: httpx.Client, unchanged: Unchanged, verb: str, running: bool, says: str) -> None:
    id = submitted(http)["id"]
    if running:
        job_steps.claim()
    ask(http, id, verb)
    unchanged()
    assert says in refused(http.post(f"/v1/jobs/{id}/{verb}"), 409)["detail"]


def test_resume_and_retry_of_jobs_that_need_neither(http: httpx.Client, unchanged: Unchanged) -> None:
    queued, running = submitted(http)["id"], submitted(http)["id"]
    job_steps.run("UPDATE jobs SET priority = 'high' WHERE id = :id", id=UUID(running))
    assert str(job_steps.claim().job_id) == running
    unchanged()
    assert "is queued, not paused" in refused(http.post(f"/v1/jobs/{queued}/resume"), 409)["detail"]
    assert "is running, not paused" in refused(http.post(f"/v1/jobs/{running}/resume"), 409)["detail"]
    assert "is running: only a failed" in refused(http.post(f"/v1/jobs/{running}/retry"), 409)["detail"]


def test_a_retry_before_its_dependencys_retry_is_refused(http: httpx.Client, unchanged: Unchanged) -> None:
    first = submitted(http)["id"]
    second = submitted(http, depends_on=[first])["id"]
    ask(http, first, "cancel")
    unchanged()
    assert "retry that job first" in refused(http.post(f"/v1/jobs/{second}/retry"), 409)["detail"]


def test_unknown_and_already_drained_machines_are_refused(http: httpx.Client, unchanged: Unchanged) -> None:
    for name in ("draining", "gone", "online"):
        job_steps.machine(name)
    http.post("/v1/workers/draining/drain")
    job_steps.run("UPDATE workers SET status = 'offline' WHERE name = 'gone'")
    unchanged()
    for verb in ("drain", "undrain"):
        assert refused(http.post(f"/v1/workers/nobody/{verb}"), 404)["detail"] == "There is no worker nobody."
    assert refused(http.post("/v1/workers/draining/drain"), 409)["detail"] == "Worker draining is already draining."
    assert refused(http.post("/v1/workers/gone/drain"), 409)["detail"] == "Worker gone is already offline."
    assert "is online, not drained" in refused(http.post("/v1/workers/online/undrain"), 409)["detail"]
    assert named(http.post("/v1/workers/online/drain", json={"now": "soon"})) == ["now"]
    assert named(http.post("/v1/workers/online/drain", json={"later": True})) == ["later"]
    assert named(http.post("/v1/workers/online/drain", json=[])) == ["body"]
    assert named(http.post(f"/v1/workers/{'x' * 201}/drain")) == ["name"]
    assert http.post("/v1/workers/a%00b/drain").status_code == 400


BAD_PROJECTS: list[tuple[str, list[str]]] = [
    ('{"weight": 0}', ["weight"]),
    ('{"weight": -1, "max_gpus": -1, "max_queued": -1}', ["weight", "max_gpus", "max_queued"]),
    ('{"budget_slot_hours": -0.1, "user_budget_slot_hours": -1}', ["budget_slot_hours", "user_budget_slot_hours"]),
    ('{"retention_days": 0}', ["retention_days"]),
    ('{"max_gpus": 1.5}', ["max_gpus"]),
    ('{"max_gpus": "4"}', ["max_gpus"]),
    ('{"max_gpus": 3000000000}', ["max_gpus"]),  # more than the table's integers hold
    ('{"budget_slot_hours": 1e999}', ["budget_slot_hours"]),
    ('{"budget_slot_hours": NaN}', ["budget_slot_hours"]),
    ('{"weight": null}', ["weight"]),
    ('{"slug": "another", "gpus": 4}', ["slug", "gpus"]),
    ("[]", ["body"]),
    ("", ["body"]),
]


def test_projects_with_impossible_limits(http: httpx.Client, unchanged: Unchanged) -> None:
    unchanged()
    for body, fields in BAD_PROJECTS:
        answer = http.put("/v1/projects/default", content=body, headers=JSON)
        assert sorted(named(answer)) == sorted(fields), body
    for slug in ("No%20Slug", "-x", "x" * 64):
        assert named(http.put(f"/v1/projects/{slug}", json={})) == ["slug"]
    assert "no project nobodys" in refused(http.get("/v1/projects/nobodys"), 404)["detail"]
    assert named(http.get("/v1/queue?project=No%20Slug")) == ["project"]


def test_invalid_changes_of_a_job_are_refused(http: httpx.Client, unchanged: Unchanged) -> None:
    path = f"/v1/jobs/{submitted(http)['id']}"
    unchanged()
    bad: list[tuple[Any, list[str]]] = [
        ({}, ["body"]),
        ({"priority": "urgent"}, ["priority"]),
        ({"priority": None}, ["priority"]),
        ({"priority": "high", "name": ""}, ["name"]),
        ({"status": "succeeded"}, ["status"]),
        ({"notes": "x" * 10_001}, ["notes"]),
        ({"notes": None}, ["notes"]),
        ({"labels": {"Team a": "x"}}, ["labels.Team a"]),
        ({"labels": {f"key-{number}": "x" for number in range(33)}}, ["labels"]),
        ([], ["body"]),
    ]
    for changes, fields in bad:
        assert sorted(named(http.patch(path, content=json.dumps(changes), headers=JSON))) == fields, changes
    refused(http.patch(f"/v1/jobs/{uuid4()}", json={"priority": "high"}), 404)
    for verb in ("pause", "resume", "retry"):
        refused(http.post(f"/v1/jobs/{uuid4()}/{verb}"), 404)


def test_a_full_queue_is_reported(http: httpx.Client, unchanged: Unchanged) -> None:
    http.put("/v1/projects/small", json={"max_queued": 0})
    unchanged()
    problem = refused(http.post("/v1/jobs", json=spec(project="small")), 409)
    assert (problem["title"], problem["type"]) == ("Quota exceeded", "urn:calibrl:quota-exceeded")


def test_the_openapi_document_describes_each_endpoint() -> None:
    document = create_app().openapi()
    for example in CHANGES.values():
        JobChanges.model_validate(example["value"])
    for example in DRAINS.values():
        Drain.model_validate(example["value"])
    for example in PROJECTS.values():
        ProjectSettings.model_validate(example["value"])
    paths = document["paths"]
    examples = {
        ("/v1/jobs/{job_id}", "patch"): CHANGES,
        ("/v1/workers/{name}/drain", "post"): DRAINS,
        ("/v1/projects/{slug}", "put"): PROJECTS,
    }
    for (path, method), wanted in examples.items():
        assert paths[path][method]["requestBody"]["content"]["application/json"]["examples"] == wanted
    assert "required" not in paths["/v1/workers/{name}/drain"]["post"]["requestBody"]
    for path, operations in paths.items():
        assert all(operation.get("description") for operation in operations.values()), path
