"""Jobs of kind bisect over real HTTP: their spec, their checkpoints, their result, and refusals."""

from uuid import UUID, uuid4

import httpx
import pytest

from calibrl.client import CalibrlError, Client
from calibrl.schemas import HealthAlert, JobStatus
from calibrl_core.bisection.settings import BisectConfig
from jobs.db import session_scope
from jobs.repository import events
from tests.support import job_steps
from tests.support.bisections import bisection_result, fired
from tests.support.rest import refused

pytestmark = pytest.mark.integration
VALIDATION = {"data": {"builtin": "digits", "split": "test", "rows": 4}}


def training(*alerts: HealthAlert, steps: tuple[int, ...] = (50, 100, 150), **changes: object) -> UUID:
    """A training that ends with these checkpoints and events of health rules."""
    job_id = job_steps.submit(**{"validation": VALIDATION} | changes)  # type: ignore[arg-type]
    claim = job_steps.claim()
    for step in steps:
        job_steps.checkpoint(job_id, step)
    with session_scope() as session:
        for alert in alerts:
            events.add_alert(session, job_id, alert, actor="worker")
    job_steps.finish(claim, JobStatus.SUCCEEDED)
    return job_id


DRIFT = fired("reward_not_accuracy", 90)
COLLAPSE = fired("entropy_collapse", 120)
CLEARED = COLLAPSE.model_copy(update={"state": "cleared", "step": 140})


def test_a_bisection_has_the_checkpoints_and_the_last_alert(client: Client) -> None:
    job_id = training(DRIFT, COLLAPSE, CLEARED)
    job = client.bisect(job_id)
    assert (job.kind, job.name, job.status) == ("bisect", "a job-bisection", "queued")
    assert (job.spec["rule"], job.spec["fired_step"]) == ("entropy_collapse", 120)
    assert job.spec["kept"] == [{"from_job": str(job_id), "checkpoint": step} for step in (50, 100, 150)]
    claim = job_steps.claim()
    config = BisectConfig.model_validate(claim.config)
    assert (claim.job_id, claim.kind) == (job.id, "bisect")
    assert [one.path.rpartition("/")[2] for one in config.kept] == ["step-000050", "step-000100", "step-000150"]
    named = client.bisect(job_id, rule="reward_not_accuracy", name="why").spec
    assert (named["rule"], named["fired_step"], named["name"]) == ("reward_not_accuracy", 90, "why")


def test_the_result_is_typed(http: httpx.Client, client: Client) -> None:
    job = client.bisect(training(DRIFT))
    assert "has not ended" in refused(http.get(f"/v1/jobs/{job.id}/bisection"), 409)["detail"]
    job_steps.finish(job_steps.claim(), JobStatus.SUCCEEDED, result=bisection_result())
    found = client.bisection(job.id)
    assert found.update is not None
    assert (found.last_good, found.update.step, found.update.groups[0].gradient_norm) == (50, 60, 2.5)


def test_what_cannot_be_explained_is_refused(http: httpx.Client, client: Client) -> None:
    def reason(job_id: UUID, **body: str) -> str:
        return str(refused(http.post(f"/v1/jobs/{job_id}/bisection", json=body), 409)["detail"])

    assert "A health rule has not fired" in reason(training())
    job_of_drift = training(DRIFT)
    assert "The rule overfitting has not fired" in reason(job_of_drift, rule="overfitting")
    assert "(fired: reward_not_accuracy)" in reason(job_of_drift, rule="overfitting")
    assert "keeps 1 checkpoint, and a bisection needs two" in reason(training(DRIFT, steps=(50,)))
    for job_id, message in (
        (training(DRIFT, validation=None), "has no validation data"),
        (training(fired("no_verdicts", 90)), "no update causes no_verdicts"),
    ):
        with pytest.raises(CalibrlError) as error:
            client.bisect(job_id)
        assert message in str(error.value.errors)
    job = client.bisect(job_of_drift)
    assert "is a bisection: only the checkpoints of a training" in reason(job.id)
    assert "is a training job" in refused(http.get(f"/v1/jobs/{job_of_drift}/bisection"), 409)["detail"]
    refused(http.post(f"/v1/jobs/{uuid4()}/bisection", json={}), 404)
