"""The official client of OpenAI, unchanged, against the served API: errors, rights and limits."""

from typing import Any
from uuid import UUID

import httpx
import openai
import pytest
from openai import OpenAI

from jobs.settings import get_settings
from tests.support import API_KEY, job_steps
from tests.support.api_users import ApiUsers
from tests.support.openai_requests import Client, by_trial, create, fault, upload
from tests.support.rest import refused, serving

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"model": "gpt-4o-mini"}, "model"),
        ({"model": "/nowhere"}, "model"),
        ({"model": f"ftjob-{UUID(int=5).hex}"}, "model"),
        ({"training_file": "file-x"}, "training_file"),
        ({"validation_file": f"file-{UUID(int=5).hex}"}, "validation_file"),
        ({"suffix": "a/b"}, "suffix"),
        ({"metadata": {"a b": "c"}}, "metadata"),
        ({"metadata": {"a": "c" * 513}}, "metadata"),
        ({"metadata": {"calibrl_gpus": "4"}}, "metadata.calibrl_gpus"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations"),
        ({"method": {"type": "dpo", "dpo": {}}}, "method.type"),
        ({"hyperparameters": {"batch_size": 0}}, "hyperparameters.batch_size"),
        ({"extra_body": {"epochs": 3}}, "epochs"),
        (
            {"method": {"type": "reinforcement", "reinforcement": {"grader": {"type": "python", "source": "1"}}}},
            "method.reinforcement.grader.name",
        ),
        ({"method": by_trial()}, "method.reinforcement.grader.reference"),  # the chats have no such column
        ({"method": by_trial(compute_multiplier=0.1)}, "method.reinforcement.grader.reference"),
    ],
)
def test_an_unsupported_request_is_a_400_with_its_field(client: OpenAI, options: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        create(client, **options)
    assert error.value.param == param
    assert param in str(error.value)


def test_errors_are_those_of_openais_client(api: httpx.Client, client_of: Client) -> None:
    with ApiUsers(api) as users:
        api.put("/v1/projects/own", json={})
        api.put("/v1/projects/second", json={})
        viewer = client_of(users.add("viewer", {"default": "viewer"}))
        member = client_of(users.add("member", {"own": "member"}))
        both = users.add("both", {"own": "member", "second": "member"})
    with pytest.raises(openai.AuthenticationError) as unknown:
        client_of("wrong").files.list()
    assert fault(unknown.value) == (None, "invalid_api_key")
    with pytest.raises(openai.PermissionDeniedError) as forbidden:
        upload(viewer)
    assert fault(forbidden.value) == (None, "insufficient_permissions")
    file, admin = upload(member), client_of()
    assert [one.id for one in client_of(project="own").files.list()] == [file.id]
    assert client_of(project="default").files.list().data == []
    assert admin.files.retrieve(file.id) == file
    assert create(member, training_file=file.id).organization_id == "own"  # its only project
    with pytest.raises(openai.NotFoundError) as hidden:
        viewer.files.retrieve(file.id)
    assert fault(hidden.value) == (None, "not_found")
    with pytest.raises(openai.NotFoundError, match="There is no project own"):
        viewer.files.list(extra_headers={"OpenAI-Project": "own"})
    with pytest.raises(openai.BadRequestError, match="you belong to own, second") as several:
        upload(client_of(both))
    assert several.value.param == "OpenAI-Project"
    assert upload(client_of(both, project="second")).id != file.id
    with pytest.raises(openai.BadRequestError, match="OpenAI-Project"):
        client_of(project="proj_Abc").files.list()
    with pytest.raises(openai.NotFoundError, match="There is no fine-tuning job"):
        admin.fine_tuning.jobs.retrieve("ftjob-x")
    with pytest.raises(openai.NotFoundError, match="Not found: "):
        admin.fine_tuning.checkpoints.permissions.list("ft:tiny-vlm")
    for missing in (admin.chat.completions.list, admin.batches.list, admin.evals.list):
        with pytest.raises(openai.NotFoundError, match="Not found: /v1/"):
            missing()
    for listed in (admin.files.list, admin.fine_tuning.jobs.list, admin.models.list):
        with pytest.raises(openai.NotFoundError, match="There is no project nowhere"):
            listed(extra_headers={"OpenAI-Project": "nowhere"})
    refused(api.get("/v1/jobs/x"), 422)  # elsewhere nothing has changed


def test_too_many_requests_and_too_long_bodies_are_refused(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIBRL_REQUESTS_AT_ONCE", "2")
    monkeypatch.setenv("CALIBRL_REQUESTS_PER_SECOND", "0.001")
    monkeypatch.setenv("CALIBRL_MAX_UPLOAD_BYTES", "100")
    get_settings.cache_clear()
    with serving() as api, OpenAI(base_url=f"{api.base_url}/v1", api_key=API_KEY, max_retries=0) as client:
        with pytest.raises(openai.APIStatusError) as large:
            client.files.create(file=("a.jsonl", b"x" * 20_000), purpose="fine-tune")
        assert (large.value.status_code, fault(large.value)) == (413, (None, None))
        client.files.list()
        with pytest.raises(openai.RateLimitError) as often:
            client.files.list()
        assert fault(often.value) == (None, "rate_limit_exceeded")


def test_a_database_that_is_away_is_an_error_of_the_servers(client: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    job_steps.run("ALTER TABLE datasets RENAME TO elsewhere")
    with pytest.raises(openai.InternalServerError) as error:
        client.files.list()
    assert error.value.type == "server_error"
