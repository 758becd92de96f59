"""Jobs of kind what_if over real HTTP: their spec, their checkpoint, their result, and refusals."""

from uuid import UUID, uuid4

import httpx
import pytest

from calibrl.client import CalibrlError, Client
from calibrl.schemas import JobStatus
from calibrl_core.variants.settings import WhatIfConfig
from tests.support import job_steps
from tests.support.rest import refused
from tests.support.what_ifs import what_if_result

pytestmark = pytest.mark.integration


def training(**changes: object) -> UUID:
    """A training that ends with checkpoints of steps 50 and 100."""
    spec = {"algorithm": {"type": "calibrl", "mini_batches": 1, "guidance_coef": 0.2}, **changes}
    job_id = job_steps.submit(**spec)  # type: ignore[arg-type]
    claim = job_steps.claim()
    for step in (50, 100):
        job_steps.checkpoint(job_id, step)
    job_steps.finish(claim, JobStatus.SUCCEEDED)
    return job_id


def test_a_what_if_has_the_spec_of_its_training_and_its_checkpoint(client: Client) -> None:
    job_id = training(labels={"team": "vision"}, rollout={"group_size": 4})
    job = client.what_if(job_id, checkpoint=50, update=0, variants={"slope 0": {"negative_slope": 0}})
    assert (job.kind, job.name, job.status, job.labels) == ("what_if", "a job-what-if", "queued", {"team": "vision"})
    assert job.spec["checkpoint"] == {"from_job": str(job_id), "checkpoint": 50}
    assert job.spec["rollout"]["group_size"] == 4
    claim = job_steps.claim()
    config = WhatIfConfig.model_validate(claim.config)
    assert (claim.job_id, claim.kind) == (job.id, "what_if")
    assert config.checkpoint.path.endswith("step-000050")
    (variant,) = config.variants
    assert variant.name == "slope 0"
    assert variant.algorithm.model_dump() == {**config.algorithm.model_dump(), "negative_slope": 0.0}


def test_without_variants_those_of_the_algorithm_are_compared(client: Client) -> None:
    job = client.what_if(training())
    names = [variant["name"] for variant in job.spec["variants"]]
    assert names[:3] == ["no guidance", "three times the guidance", "slope 0"]
    assert {"dr_grpo", "luffy"} <= set(names)
    tripled = job.spec["variants"][1]["algorithm"]
    assert tripled["guidance_coef"] == pytest.approx(0.6)
    assert job.spec["checkpoint"]["checkpoint"] == 100


def test_the_result_is_typed(http: httpx.Client, client: Client) -> None:
    job = client.what_if(training())
    assert "has not ended" in refused(http.get(f"/v1/jobs/{job.id}/what-if"), 409)["detail"]
    job_steps.finish(job_steps.claim(), JobStatus.SUCCEEDED, result=what_if_result())
    found = client.what_if_result(job.id)
    assert [update.name for update in found.updates] == ["own", "slope 0"]
    assert found.completions[0].changes == [[0.01, -0.02], [0.03, 0.0]]
    (listed,) = client.jobs(kind="what_if").data
    (derived,) = client.jobs(derived_from=job.spec["checkpoint"]["from_job"]).data
    assert listed.id == derived.id == job.id


def test_what_cannot_be_compared_is_refused(http: httpx.Client, client: Client) -> None:
    job_id = training()
    for variants, message in (
        ({"a": {"type": "none"}}, "there is no algorithm 'none'"),
        ({"a": {"negative_slope": 2}}, "at most 1"),
        ({"a": {"type": "sft"}}, "does not learn from rollouts"),
    ):
        with pytest.raises(CalibrlError) as error:
            client.what_if(job_id, variants=variants)
        assert error.value.status == 422
        assert message in str(error.value.errors)
    missing = refused(http.post(f"/v1/jobs/{job_id}/what-if", json={"checkpoint": 70}), 422)
    assert "no checkpoint of step 70: available steps: 50, 100" in missing["errors"][0]["message"]
    assert "is a training job" in refused(http.get(f"/v1/jobs/{job_id}/what-if"), 409)["detail"]
    job = client.what_if(job_id)
    assert "is a what-if" in refused(http.post(f"/v1/jobs/{job.id}/what-if", json={}), 409)["detail"]
    assert "is a what-if" in refused(http.get(f"/v1/jobs/{job.id}/audit"), 409)["detail"]
    refused(http.post(f"/v1/jobs/{uuid4()}/what-if", json={}), 404)


def test_supervised_trainings_have_no_step_to_compare(client: Client) -> None:
    supervised = training(algorithm={"type": "sft"})
    with pytest.raises(CalibrlError) as error:
        client.what_if(supervised, variants={"grpo": {"type": "grpo", "mini_batches": 1}})
    assert "sft samples nothing" in str(error.value.errors)
