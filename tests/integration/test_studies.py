"""Studies over real HTTP and in a real database: posted, brought forward, continued, cancelled, reported."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import httpx
import pytest

from calibrl.client import Client
from calibrl.schemas import JobStatus, Study, StudySpec, StudyStatus
from jobs import models
from jobs.db import session_scope
from jobs.repository import projects, studies
from jobs.studies import advancing, requests
from jobs.studies.expansion import Expansion, Points, expand
from tests.support import job_steps
from tests.support.api_users import ApiUsers
from tests.support.rest import named, refused
from tests.support.study_jobs import STUDY
from tests.support.study_requests import JOBS, PARTS, advance, end_all, names, posted, read
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration
LOOKS = {"seeds": [0, 1, 2], "baseline": "a", "stop": {"after_seeds": [2]}}


def test_a_study_runs_to_its_end_and_reports(http: httpx.Client, client: Client) -> None:
    study = posted(http, baseline="a")
    assert (study["status"], study["user"], study["progress"]["planned"]) == ("running", "admin", 8)
    advance()
    assert names(http) == JOBS
    assert {job["user"] for job in http.get("/v1/jobs").json()["data"]} == {"admin"}
    end_all({"a": [0.0, 0.5, 0.75], "b": [0.25, 0.75, 1.0]})
    advance()
    ended = read(http, study)
    assert (ended["status"], ended["message"], ended["progress"]["succeeded"]) == ("succeeded", None, 8)
    assert ended["progress"]["slot_hours"] == pytest.approx(8.0)

    (row,) = client.study_report(study["id"]).comparisons
    assert (row.first, row.second, row.seeds, row.difference, row.distinguishable) == ("a", "b", [0, 1], 0.25, True)
    page = client.study_page(study["id"], "html", dashboard="https://board.example")
    text = client.study_page(study["id"], "markdown")
    for job in http.get("/v1/jobs").json()["data"]:
        assert f'href="https://board.example/job?id={job["id"]}"' in page
        assert f"]({client.url}/v1/jobs/{job['id']})" in text
    assert "<svg" in page and "![" not in text


def test_a_post_continues_the_study_of_this_name(http: httpx.Client) -> None:
    study = posted(http)
    advance()
    assert posted(http)["id"] == study["id"]
    advance()
    assert len(names(http)) == 8
    assert posted(http, seeds=[0, 1, 2])["progress"]["planned"] == 12
    advance()
    assert names(http)[8:] == [f"slopes {arm} seed 2 {part}" for arm in "ab" for part in PARTS]
    job_steps.run("UPDATE jobs SET status = 'failed', reason = 'out_of_memory' WHERE name LIKE '%a seed 0%'")
    end_all()
    advance()
    assert (read(http, study)["status"], read(http, study)["progress"]["failed"]) == ("failed", 2)
    posted(http, seeds=[0, 1, 2])
    advance()
    assert names(http)[12:] == JOBS[:2]  # the failed runs again
    end_all()
    advance()
    assert read(http, study)["status"] == "succeeded"


def test_two_services_never_submit_a_run_twice(http: httpx.Client) -> None:
    """Both take the same step at the same time, as after a process that was suspended for longer than a minute."""
    study = posted(http)
    with session_scope() as session:
        row = studies.get(session, UUID(study["id"]))
    together = threading.Barrier(2)

    def run(_: int) -> None:
        together.wait()
        advancing._advance(row)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, range(2)))
    advance()
    assert sorted(names(http)) == sorted(JOBS)


def test_a_step_is_reserved_for_one_service(http: httpx.Client) -> None:
    posted(http)
    with session_scope() as session:
        assert studies.claim_due(session, 60) is not None
    assert advancing.advance_due() == 0
    job_steps.run("UPDATE studies SET next_at = now()")  # the minute is over: that service has died
    assert advancing.advance_due() == 1
    assert names(http) == JOBS


def test_studies_share_a_run_and_a_cancelled_one_leaves_it(http: httpx.Client) -> None:
    first, second = posted(http), posted(http, name="other", seeds=[1, 2])
    advance()
    assert len(names(http)) == 12  # seed 1 of both is one run
    answer = http.post(f"/v1/studies/{first['id']}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelling")
    refused(http.post(f"/v1/studies/{first['id']}/cancel"), 409)
    refused(http.post("/v1/studies", json=STUDY), 409)
    advance()
    advance()
    assert read(http, first)["status"] == "cancelled"
    assert sorted(names(http, status="cancelled")) == sorted(JOBS[:4:2])
    assert sorted(names(http, status="failed")) == sorted(JOBS[1:4:2])  # evaluations of cancelled trainings
    end_all()
    advance()
    assert (read(http, second)["status"], read(http, second)["progress"]["succeeded"]) == ("succeeded", 8)


def test_only_a_study_that_has_ended_is_removed(http: httpx.Client) -> None:
    study = posted(http)
    advance()
    refused(http.delete(f"/v1/studies/{study['id']}"), 409)
    end_all()
    advance()
    assert http.delete(f"/v1/studies/{study['id']}").status_code == 204
    refused(http.get(f"/v1/studies/{study['id']}"), 404)
    assert len(names(http)) == 8
    again = posted(http)  # it adopts the jobs
    advance()
    assert (read(http, again)["status"], len(names(http))) == ("succeeded", 8)


def test_a_study_adopts_no_fork_and_no_what_if(http: httpx.Client) -> None:
    """Both have the labels of the job that they were made from."""
    posted(http, seeds=[0])
    advance()
    job_steps.run("UPDATE jobs SET forked_from = id WHERE name = :name", name=JOBS[0])
    job_steps.run("UPDATE jobs SET kind = 'what_if' WHERE name = :name", name=JOBS[2])
    job_steps.run("DELETE FROM studies")
    posted(http, seeds=[0])
    advance()
    assert names(http)[4:] == JOBS[:3:2]


def test_steps_expand_a_study_once(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    expanded: list[StudySpec] = []

    def counted(study: StudySpec, points: Points) -> Expansion:
        expanded.append(study)
        return expand(study, points)

    posted(http, seeds=[5])
    monkeypatch.setattr(requests, "expand", counted)
    advance()
    advance()
    assert len(expanded) == 1


def test_a_post_waits_for_the_step_of_its_study(http: httpx.Client) -> None:
    """A step locks the study, then the project. A post that has locked the project first would end one of both."""
    study = posted(http)
    with ThreadPoolExecutor(1) as pool:
        with session_scope() as session:
            studies.lock(session, UUID(study["id"]))
            again = pool.submit(posted, http)
            eventually(lambda: job_steps.run_count("SELECT count(*) FROM pg_locks WHERE NOT granted"))
            projects.lock(session, "default")
        assert again.result()["id"] == study["id"]


def test_a_second_first_post_waits_for_the_first_without_the_project(http: httpx.Client) -> None:
    """A post that holds the project while it waits for the study would end one of both, with a step between them."""
    http.put("/v1/projects/default", json={"max_queued": 100})
    with ThreadPoolExecutor(1) as pool:
        with session_scope() as session:
            studies.lock_name(session, "default", STUDY["name"])
            first = pool.submit(posted, http)
            eventually(lambda: job_steps.run_count("SELECT count(*) FROM pg_locks WHERE NOT granted"))
            assert projects.lock(session, "default") is not None
        assert first.result()["status"] == "running"


def test_a_stored_study_that_is_not_accepted_any_more_ends(http: httpx.Client) -> None:
    """Another version of the service has accepted it."""
    study, other = posted(http), posted(http, name="other")
    advance()
    http.post(f"/v1/studies/{other['id']}/cancel")
    job_steps.run("UPDATE studies SET spec = spec::jsonb - 'evaluation'")
    advance()
    advance()
    assert (read(http, study)["status"], read(http, other)["status"]) == ("failed", "cancelled")
    assert read(http, study)["message"] == "The study was not accepted. spec: evaluation: Field required"
    assert named(http.get(f"/v1/studies/{study['id']}/report")) == ["spec"]
    assert posted(http)["status"] == "running"


def test_a_look_stops_an_arm_once_and_for_all(http: httpx.Client) -> None:
    study = posted(http, **LOOKS)
    advance()
    assert len(names(http)) == 8
    end_all({"a": [1.0, 1.0, 1.0], "b": [0.0, 0.0, 0.0]})
    advance()
    assert names(http)[8:] == [f"slopes a seed 2 {part}" for part in PARTS]
    assert read(http, study)["progress"]["stopped"] == {"b": 2}
    job_steps.run("UPDATE accuracies SET values = '{1,1,1}'")  # a decision is kept, not made again
    end_all()
    advance()
    assert (read(http, study)["status"], read(http, study)["progress"]["stopped"]) == ("succeeded", {"b": 2})
    report = http.get(f"/v1/studies/{study['id']}/report").json()
    assert [arm["stopped_after"] for arm in report["arms"]] == [None, 2]


def test_jobs_wait_for_room_in_the_project(http: httpx.Client) -> None:
    http.put("/v1/projects/default", json={"max_queued": 3})
    study = posted(http)
    advance()
    assert names(http) == JOBS[:3]
    (note,) = read(http, study)["progress"]["notes"]
    assert "slopes b seed 0 evaluation is not submitted yet: Project default has reached its limit of 3" in note
    end_all()
    advance()
    assert names(http) == JOBS[:6]


def test_a_crashed_job_is_retried_and_counted(http: httpx.Client) -> None:
    study = posted(http, seeds=[0])
    advance()
    for count in ("1", None):
        job_steps.run("UPDATE jobs SET status = 'failed', reason = 'crashed' WHERE name = :name", name=JOBS[0])
        advance()
        (job,) = http.get("/v1/jobs", params={"q": JOBS[0]}).json()["data"]
        assert job["labels"]["study-retries"] == "1"
        assert job["status"] == ("queued" if count else "failed")
    assert read(http, study)["progress"]["failed"] == 2


def test_a_study_has_the_rights_of_its_user_now(http: httpx.Client) -> None:
    http.put("/v1/projects/vision", json={})
    with ApiUsers(http) as users:
        ann = users.add("ann", {"vision": "member"})
        own = STUDY | {"base": STUDY["base"] | {"project": "vision"}, "seeds": [0]}
        study = users.post(ann, "/v1/studies", own).json()
        advance()
        assert len(names(http, user="ann")) == 4
        http.put("/v1/projects/vision/members/ann", json={"role": "viewer"})
        users.ask(ann, "GET", "/v1/studies").raise_for_status()
        assert users.post(ann, "/v1/studies", own).status_code == 403
        job_steps.run("UPDATE studies SET spec = jsonb_set(spec::jsonb, '{seeds}', '[0, 1]')::json")
        advance()
        ended = users.get(ann, f"/v1/studies/{study['id']}").json()
        assert ended["status"] == "failed"
        assert "requires the role member in project vision" in ended["message"]
        assert len(names(http, user="ann")) == 4
        assert users.get(ann, "/v1/studies").json()["data"][0]["name"] == "slopes"
        stranger = users.add("eve", {})
        assert users.get(stranger, f"/v1/studies/{study['id']}").status_code == 404
        assert users.get(stranger, "/v1/studies").json()["data"] == []


def test_a_faulty_study_is_refused_with_its_fields(http: httpx.Client) -> None:
    def faults(**changes: Any) -> list[str]:
        return named(http.post("/v1/studies", json=STUDY | changes))

    assert faults(baseline="gpro") == ["baseline"]
    assert faults(arms={"a": {"algorithm": {"type": "grpo", "negative_slope": 1}}}) == ["arms.a"]
    assert faults(arms={"a": {"data": {"path": "/none.jsonl"}}}) == ["arms.a.data.path"]
    assert faults(evaluation={"data": [{"path": "/none.jsonl"}]}) == ["evaluation.data.0.path"]
    assert faults(base=STUDY["base"] | {"project": "nowhere"})[0].endswith("project")
    assert faults(base=STUDY["base"] | {"resources": {"gpus": 8}})[0] == "arms.a.resources.gpus"
    assert names(http) == []


def test_a_job_that_is_refused_later_ends_the_study(http: httpx.Client) -> None:
    study = posted(http)
    without_file = """jsonb_set(spec::jsonb, '{base,data}', '{"path": "/none.jsonl"}')::json"""
    job_steps.run(f"UPDATE studies SET spec = {without_file}")
    advance()
    ended = read(http, study)
    assert ended["status"] == "failed"
    assert ended["message"].startswith("slopes a seed 0 training was refused. data.path: ")


def test_studies_are_listed_newest_first(client: Client) -> None:
    for name in ("one", "two", "three"):
        client.post_study(STUDY | {"name": name})
    page = client.studies(limit=2)
    assert ([study.name for study in page.data], page.has_more) == (["three", "two"], True)
    assert [study.name for study in client.studies(after=page.data[-1].id).data] == ["one"]
    (found,) = client.studies(name="two").data
    study = client.study(found.id)
    assert isinstance(study, Study) and study.spec["seeds"] == [0, 1]
    client.cancel_study(found.id)
    advance()
    assert client.study(found.id).status is StudyStatus.CANCELLED


def test_arms_have_the_order_of_the_request(http: httpx.Client) -> None:
    arms = ["the-longest", "b", "middle"]
    study = posted(http, arms={arm: {"optimizer.lr": 10.0**-place} for place, arm in enumerate(arms, 3)}, seeds=[0])
    report = http.get(f"/v1/studies/{study['id']}/report").json()
    assert [arm["name"] for arm in report["arms"]] == arms


def test_an_answer_can_be_asked_for_again(http: httpx.Client) -> None:
    """The second answer is the first one, also if the study has changed since."""
    answers = [http.post("/v1/studies", json=STUDY, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()


def test_no_job_is_submitted_for_a_cancelled_study(http: httpx.Client) -> None:
    study = posted(http)
    with session_scope() as session:
        row: models.Study = studies.get(session, UUID(study["id"]))
    http.post(f"/v1/studies/{study['id']}/cancel")
    advancing._advance(row)  # a step that began before
    assert names(http) == []
    assert {job["status"] for job in http.get("/v1/jobs").json()["data"]} <= {JobStatus.CANCELLED}


def test_points_of_ranges_are_stored_before_their_jobs_run(http: httpx.Client) -> None:
    pytest.importorskip("optuna")
    axes = {"optimizer.lr": {"low": 1e-5, "high": 1e-3, "log": True}}
    study = posted(http, arms={"a": {}}, axes=axes, search={"points": 3, "at_once": 2}, seeds=[0])
    assert study["progress"]["planned"] == 6
    for count in (4, 6):
        advance()
        assert len(names(http)) == count
        end_all()
    advance()
    ended = read(http, study)
    assert (ended["status"], ended["progress"]["succeeded"]) == ("succeeded", 6)
    report = http.get(f"/v1/studies/{study['id']}/report").json()
    rates = {arm["name"]: arm["changes"]["optimizer.lr"] for arm in report["arms"]}
    assert [*rates] == ["a-point-1", "a-point-2", "a-point-3"] and len(set(rates.values())) == 3
    posted(http, arms={"a": {}}, axes=axes, search={"points": 3, "at_once": 2}, seeds=[0])
    advance()
    assert len(names(http)) == 6  # the same points
