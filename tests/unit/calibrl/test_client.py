"""The client over real HTTP: what it sends, what it makes of the answers, and its errors in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from calibrl.client import CalibrlError, Client, SpecError
from calibrl.schemas import JobStatus, ProjectSettings, job_spec_adapter

from .conftest import JOB_ID, JOB_PATH, KEY, SPEC, Service, entry, job, machine, page, problem, project


def test_a_job_is_posted_with_the_key_and_read_back(service: Service) -> None:
    service.on("POST", "/v1/jobs", (201, job()))
    with Client() as client:
        submitted = client.submit(SPEC)
    request = service.requests[0]
    assert (submitted.id, submitted.status) == (JOB_ID, JobStatus.RUNNING)
    assert (request.body, request.headers["Authorization"]) == (SPEC, f"Bearer {KEY}")


def test_a_spec_model_is_posted_as_its_author_wrote_it(service: Service) -> None:
    service.on("POST", "/v1/jobs", (201, job()))
    with Client() as client:
        client.submit(job_spec_adapter.validate_python(SPEC))
    assert service.requests[0].body == SPEC | {"model": {"builtin": "tiny-vlm"}, "data": {"builtin": "digits"}}


def test_the_spec_of_a_file_is_posted_with_absolute_paths(service: Service, tmp_path: Path) -> None:
    service.on("POST", "/v1/jobs", (201, job()))
    (tmp_path / "my.json").write_text(json.dumps(SPEC | {"data": {"path": "rows.jsonl"}}))
    with Client() as client:
        client.submit(tmp_path / "my.json")
        client.submit(str(tmp_path / "my.json"))
        with pytest.raises(SpecError, match=r"none\.yaml: No such file"):
            client.submit("none.yaml")
    assert [request.body for request in service.requests] == [
        SPEC | {"data": {"path": str(tmp_path / "rows.jsonl")}}
    ] * 2


def test_only_the_given_parameters_are_sent(service: Service) -> None:
    service.on("GET", "/v1/jobs", page(job()))
    service.on("GET", f"{JOB_PATH}/metrics", page({"step": 1, "ts": "2026-01-01T00:00:00Z", "values": {"a/b": "NaN"}}))
    with Client() as client:
        client.jobs(status=JobStatus.FAILED, after=JOB_ID)
        rows = client.metrics(JOB_ID, names=["a/b", "c/d"], after_step=-1).data
    assert service.requests[0].query == {"status": "failed", "after": str(JOB_ID), "limit": "100"}
    assert service.requests[1].query == {"names": "a/b,c/d", "after_step": "-1", "limit": "1000"}
    assert rows[0].values == {"a/b": "NaN"}


def test_a_job_id_stays_one_part_of_the_path(service: Service) -> None:
    with Client() as client, pytest.raises(CalibrlError):
        client.cancel("../workers?x=")
    assert service.requests[0].path == "/v1/jobs/..%2Fworkers%3Fx%3D/cancel"


def test_actions_on_a_job_are_posted(service: Service) -> None:
    for verb in ("cancel", "pause", "resume", "retry"):
        service.on("POST", f"{JOB_PATH}/{verb}", job(status="queued"))
    service.on("PATCH", JOB_PATH, job(priority="high"))
    with Client() as client:
        for ask in (client.cancel, client.pause, client.resume, client.retry):
            assert ask(JOB_ID).status is JobStatus.QUEUED
        assert client.prioritise(JOB_ID, "high").priority == "high"
    sent = [(request.method, request.path.rpartition("/")[2], request.body) for request in service.requests]
    assert sent[:4] == [("POST", verb, None) for verb in ("cancel", "pause", "resume", "retry")]
    assert sent[4] == ("PATCH", str(JOB_ID), {"priority": "high"})


def test_queue_machines_projects_and_usage(service: Service) -> None:
    used = {"project": "vision", "user": "ann", "slot_hours": 1.5, "gpu_hours": 0, "budget_slot_hours": None}
    service.on("GET", "/v1/queue", page(entry()))
    service.on("GET", "/v1/workers", page(machine()))
    service.on("POST", "/v1/workers/gpu%201/drain", machine(status="stopping"))
    service.on("POST", "/v1/workers/gpu%201/undrain", machine())
    service.on("GET", "/v1/projects", page(project()))
    service.on("GET", "/v1/projects/vision", project())
    service.on("PUT", "/v1/projects/vision", project(max_gpus=4))
    service.on("GET", "/v1/usage", page(used))
    with Client() as client:
        assert client.queue("vision")[0].reason == "busy"
        assert service.requests[-1].query == {"project": "vision"}
        assert client.workers()[0].gpus[0].job_id == JOB_ID
        assert client.drain("gpu 1", now=True).status == "stopping"
        assert service.requests[-1].body == {"now": True}
        assert client.undrain("gpu 1").status == "online"
        assert [one.slug for one in client.projects()] == ["vision"]
        assert client.project("vision").weight == 1.0
        assert client.put_project("vision", ProjectSettings(max_gpus=4)).max_gpus == 4
        assert service.requests[-1].body == {"max_gpus": 4}
        assert client.usage()[0].slot_hours == 1.5


def test_image_bytes_are_returned_unchanged(service: Service) -> None:
    service.on("GET", f"{JOB_PATH}/images/ab", b"\x89PNG")
    with Client() as client:
        assert client.image(JOB_ID, "ab") == b"\x89PNG"


def test_an_error_names_the_cause_field_and_fix_in_one_line(service: Service) -> None:
    errors = [{"field": "steps", "message": "must be at least 1"}, {"field": "seed", "message": "must be\na number"}]
    service.on("POST", "/v1/jobs", problem(422, "Invalid job spec", detail="2 fields", errors=errors))
    with Client() as client, pytest.raises(CalibrlError) as caught:
        client.submit({})
    assert str(caught.value) == "Invalid job spec: steps: must be at least 1; seed: must be a number"
    assert (caught.value.status, caught.value.detail, list(caught.value.errors)) == (422, "2 fields", errors)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (problem(409, "Conflict", detail="the job has ended"), "Conflict: the job has ended"),
        ((500, b"<html>oops</html>"), "{url}" + f"{JOB_PATH} answered 500"),
        ((302, b""), "{url}" + f"{JOB_PATH} answered 302"),
        ((200, b"<html>hello</html>"), "{url}" + f"{JOB_PATH} gave an answer that is not a valid Job: body: "),
        ((200, {}), "{url}" + f"{JOB_PATH} gave an answer that is not a valid Job: id: Field required"),
    ],
)
def test_every_bad_answer_is_one_line(service: Service, answer: Any, line: str) -> None:
    service.on("GET", JOB_PATH, answer)
    with Client() as client, pytest.raises(CalibrlError) as caught:
        client.job(JOB_ID)
    assert str(caught.value).startswith(line.format(url=service.url))
    assert "\n" not in str(caught.value)


def test_an_unready_service_is_a_result_and_not_an_error(service: Service) -> None:
    service.on("GET", "/readyz", (503, {"ok": False, "checks": {"broker": "refused"}}))
    with Client() as client:
        health = client.ready()
    assert (health.ok, health.checks) == (False, {"broker": "refused"})


def test_values_json_cannot_hold_are_refused_before_sending(service: Service) -> None:
    with Client() as client, pytest.raises(CalibrlError, match="JSON cannot express"):
        client.submit(SPEC | {"seed": float("nan")})
    with Client() as client, pytest.raises(CalibrlError, match=r"optimizer\.betas\.1 is not a finite number"):
        client.submit(SPEC | {"optimizer": {"betas": [0.9, float("inf")]}})
    assert service.requests == []


@pytest.mark.parametrize(("name", "value"), [("ALL_PROXY", "nonsense://x"), ("SSL_CERT_FILE", "/nowhere/ca.pem")])
def test_a_proxy_or_certificate_that_cannot_be_used_is_named(
    service: Service, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(CalibrlError, match=f"check .*{name}"):
        Client("https://calibrl.example.org", "k")
