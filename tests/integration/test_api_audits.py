"""Audits of experts over real HTTP: their result, their file, and refusals."""

from uuid import UUID, uuid4

import httpx
import pytest

from calibrl.client import Client
from calibrl.schemas import JobStatus
from jobs.settings import get_settings
from tests.support import job_steps
from tests.support.audits import audit_result
from tests.support.rest import refused

pytestmark = pytest.mark.integration


def submitted() -> UUID:
    data = {"builtin": "digits", "rows": 4}
    return job_steps.submit_spec({"kind": "audit", "name": "x", "model": {"builtin": "tiny-vlm"}, "data": data})


def test_the_result_of_an_audit_is_typed(client: Client) -> None:
    job_id = submitted()
    claim = job_steps.claim()
    assert (claim.job_id, claim.kind) == (job_id, "audit")
    job_steps.finish(claim, JobStatus.SUCCEEDED, result=audit_result())
    found = client.expert_audit(job_id)
    assert found.verdicts == {"use": 2, "rewrite": 1, "drop": 1}
    assert [(row.row, row.verdict) for row in found.worst] == [(3, "drop"), (2, "rewrite"), (1, "use")]
    (listed,) = client.jobs(kind="audit").data
    assert (listed.id, listed.kind) == (job_id, "audit")


def test_only_a_succeeded_audit_has_a_result(http: httpx.Client) -> None:
    training = job_steps.submit()
    assert "is a training job" in refused(http.get(f"/v1/jobs/{training}/audit"), 409)["detail"]
    job_steps.cancel(training)
    job_id = submitted()
    assert "has not ended: it is queued" in refused(http.get(f"/v1/jobs/{job_id}/audit"), 409)["detail"]
    assert "is an audit" in refused(http.get(f"/v1/jobs/{job_id}/evaluation"), 409)["detail"]
    job_steps.finish(job_steps.claim(), JobStatus.SUCCEEDED, result={"something": "else"})
    assert "format that this version" in refused(http.get(f"/v1/jobs/{job_id}/audit"), 409)["detail"]
    refused(http.get(f"/v1/jobs/{uuid4()}/audit"), 404)


def test_the_rows_of_an_audit_are_a_result_file(http: httpx.Client, client: Client) -> None:
    job_id = submitted()
    job_steps.claim()
    folder = get_settings().run_dir(job_id, 1)
    folder.mkdir(parents=True)
    (folder / "audit.jsonl").write_text('{"row": 1}\n')
    assert [file.name for file in client.results(job_id)] == ["audit.jsonl"]
    assert http.get(f"/v1/jobs/{job_id}/results/audit.jsonl").text == '{"row": 1}\n'


def test_a_plan_of_an_audit_has_its_data_and_memory(client: Client) -> None:
    plan = client.plan(
        {"kind": "audit", "name": "x", "model": {"builtin": "tiny-vlm"}, "data": {"builtin": "digits", "rows": 4}}
    )
    assert (plan.steps, plan.data[0].rows, plan.spec["max_nll"]) == (None, 4, 2.0)
    assert plan.memory is not None and plan.memory.trained == 0
