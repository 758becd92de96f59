"""The official client of OpenAI, unchanged, against the served API: models."""

import httpx
import openai
import pytest
from openai import OpenAI

from calibrl.schemas import JobStatus
from tests.support import job_steps
from tests.support.api_users import ApiUsers
from tests.support.openai_requests import Client, create

pytestmark = pytest.mark.integration


def test_models_are_the_built_in_one_and_results(client: OpenAI, client_of: Client, api: httpx.Client) -> None:
    job = create(client, suffix="sums")
    assert [model.id for model in client.models.list()] == ["tiny-vlm"]  # the job has not ended
    job_steps.finish(job_steps.claim(), JobStatus.SUCCEEDED)
    name = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
    assert name is not None
    assert [model.id for model in client.models.list()] == ["tiny-vlm", name]
    model = client.models.retrieve(f"{name}:step-2")
    assert (model.id, model.owned_by) == (name, "default")
    assert client.models.retrieve("tiny-vlm").owned_by == "calibrl"
    with ApiUsers(api) as users:
        stranger = client_of(users.add("stranger", {}))
    assert [model.id for model in stranger.models.list()] == ["tiny-vlm"]
    for hidden in (name, "gpt-4o"):
        with pytest.raises(openai.NotFoundError, match="There is no model"):
            stranger.models.retrieve(hidden)
