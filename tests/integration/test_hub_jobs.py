"""Jobs on models of the hub, from the request to the trainer's config; hub and trainer are fake."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai import OpenAI
from safetensors.numpy import save

from calibrl.schemas import JobStatus, Reason
from jobs import janitor
from jobs.db import session_scope
from jobs.files import hub_models
from jobs.files.hub import HubUnavailable
from jobs.files.hub_models import HubSnapshot
from jobs.janitor import Finding, Kind
from jobs.repository import events
from jobs.settings import get_settings
from tests.support import API_KEY, job_steps
from tests.support.fake_hub import FakeHub, serving_hub
from tests.support.openai_requests import create, fault, uuid
from tests.support.rest import named, refused, submitted
from tests.support.study_jobs import STUDY
from tests.support.study_requests import posted
from tests.support.worker import wake
from tests.support.worker_jobs import event_types, job, log_text

pytestmark = pytest.mark.integration
MODEL, TOKEN = "Qwen/tiny", "hf_secret"
WEIGHTS = save(
    {
        "model.embed_tokens.weight": np.ones((64, 16), np.float32),
        "model.layers.0.mlp.up_proj.weight": np.ones((16, 16), np.float32),
    }
)
FILES = {"config.json": b'{"model_type": "qwen2", "max_position_embeddings": 32}', "model.safetensors": WEIGHTS}
SIZE = sum(map(len, FILES.values()))


@pytest.fixture
def hub(quick_worker: None, http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with one gated model that the project `default` has a token for."""
    with serving_hub(MODEL, dict(FILES), tokens={TOKEN}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("CALIBRL_ALLOWED_HUB_MODELS", "google/gemma-*, Qwen/*")
        monkeypatch.setenv("CALIBRL_HUB_TOKENS", json.dumps({"default": TOKEN}))
        monkeypatch.setattr(hub_models, "PAUSE_SECONDS", 0)
        get_settings.cache_clear()
        yield hub


def config(job_id: Any, attempt: int = 1) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((get_settings().run_dir(job_id, attempt) / "config.json").read_text())
    return read


def test_a_job_runs_on_the_commit_of_its_submission(http: httpx.Client, hub: FakeHub) -> None:
    settings = {"steps": 2, "prompts_per_step": 4, "algorithm": {"type": "grpo", "mini_batches": 1}}
    created = submitted(http, model={"hub": MODEL, "freeze_vision": True}, seed=0, **settings)
    assert created["spec"]["model"]["revision"] == hub.commit
    wake()
    done = job(created["id"])
    assert (done.status, done.message) == (JobStatus.SUCCEEDED, None)
    snapshot = HubSnapshot(MODEL, hub.commit, "default")
    assert config(done.id)["model"]["path"] == str(snapshot.path) and config(done.id)["model"]["freeze_vision"]
    assert {path.name: path.read_bytes() for path in snapshot.path.iterdir()} == FILES
    assert event_types(done.id).count("download") == 1
    asked = len(hub.asked)
    body = {"kind": "evaluate", "name": "e", "models": [{"hub": MODEL, "revision": hub.commit}]}
    evaluation = http.post("/v1/jobs", json={**body, "data": [{"builtin": "digits"}]}).json()
    assert len(hub.asked) == asked + 2  # the list of files, and the config as the proof of access
    wake()
    assert len(hub.asked) == asked + 2 and "download" not in event_types(evaluation["id"])
    assert config(evaluation["id"])["models"][0]["path"] == str(snapshot.path)
    forked = http.post(f"/v1/jobs/{evaluation['id']}/fork", json={}).json()
    assert forked["spec"]["models"][0]["revision"] == hub.commit


def test_all_runs_of_a_study_have_the_commit_of_its_first_post(http: httpx.Client, hub: FakeHub) -> None:
    base, first = STUDY["base"] | {"model": {"hub": MODEL}}, hub.commit
    arms = {"a": {}, "b": {"model.hub": MODEL, "optimizer.lr": 1e-4}, "c": {"model.revision": "main", "steps": 4}}
    spec = posted(http, base=base, arms=arms)["spec"]
    assert spec["base"]["model"] == {"hub": MODEL, "revision": first}
    assert {spec["arms"][arm].get("model.revision") for arm in "bc"} == {first}
    hub.commit = "f" * 40
    again = posted(http, base=base, arms=arms)["spec"]
    assert (again["base"], again["arms"]["b"]) == (spec["base"], spec["arms"]["b"])
    assert again["arms"]["c"]["model.revision"] == hub.commit  # a branch is asked for again
    faulty = http.post("/v1/studies", json=STUDY | {"base": base | {"model": {"hub": "evil/model"}}, "arms": {}})
    assert named(faulty) == ["base.model.hub"]


def test_a_plan_shows_download_and_memory_before_any_of_it(http: httpx.Client, hub: FakeHub) -> None:
    body = {"kind": "train", "name": "p", "model": {"hub": MODEL}, "data": {"builtin": "digits"}, "steps": 1}
    answer = http.post("/v1/jobs:plan", json=body)
    plan = answer.json()
    facts = {"field": "model", "name": MODEL, "commit": hub.commit, "download_bytes": SIZE, "check": None}
    assert plan["models"] == [facts]
    assert plan["memory"]["parameters"] == 64 * 16 + 16 * 16
    assert len(hub.ranges("model.safetensors")) == 1 and hub.ranges("model.safetensors") != [None]
    assert not HubSnapshot(MODEL, hub.commit, "default").path.exists()
    assert TOKEN not in answer.text


def test_a_name_that_is_not_allowed_names_the_setting(http: httpx.Client, hub: FakeHub) -> None:
    for path in ("/v1/jobs", "/v1/jobs:plan"):
        body = {"kind": "train", "name": "x", "model": {"hub": "evil/model"}, "data": {"builtin": "digits"}, "steps": 1}
        (error,) = refused(http.post(path, json=body), 422)["errors"]
        assert error["field"] == "model.hub" and error["message"] == (
            "jobs cannot load evil/model: allowed are google/gemma-*, Qwen/* (set by CALIBRL_ALLOWED_HUB_MODELS)"
        )
    assert hub.asked == []


def test_the_token_of_another_project_is_not_used(http: httpx.Client, hub: FakeHub) -> None:
    http.put("/v1/projects/other", json={})
    body = {"kind": "evaluate", "name": "x", "project": "other", "data": [{"builtin": "digits"}]}
    answer = http.post("/v1/jobs", json={**body, "models": [{"builtin": "tiny-vlm"}, {"hub": MODEL}]})
    (error,) = refused(answer, 422)["errors"]
    assert error["field"] == "models.1.hub"
    assert "(HTTP 401): project 'other' has none; set it in CALIBRL_HUB_TOKENS" in error["message"]
    assert all("authorization" not in headers for _, headers in hub.asked)


def test_the_client_of_openai_names_a_model_of_the_hub(http: httpx.Client, hub: FakeHub) -> None:
    client = OpenAI(base_url=f"{http.base_url}/v1", api_key=API_KEY, max_retries=0)
    made = create(client, model=MODEL)
    assert made.model == MODEL
    spec = http.get(f"/v1/jobs/{uuid(made)}").json()["spec"]
    assert spec["model"]["hub"] == MODEL and spec["model"]["revision"] == hub.commit
    with pytest.raises(openai.BadRequestError, match="jobs cannot load evil/model: allowed are") as error:
        create(client, model="evil/model")
    assert fault(error.value)[0] == "model"


def test_an_answered_request_needs_no_hub(http: httpx.Client, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"kind": "train", "name": "x", "model": {"hub": MODEL}, "data": {"builtin": "digits"}, "steps": 1}
    first = http.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k"})
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    get_settings.cache_clear()
    again = http.post("/v1/jobs", json=body, headers={"Idempotency-Key": "k"})
    assert first.status_code == again.status_code == 201 and first.json()["id"] == again.json()["id"]
    assert refused(http.post("/v1/jobs", json=body), 503)["type"] == "urn:calibrl:hub-away"


def test_a_failed_download_continues_later_without_secrets(http: httpx.Client, hub: FakeHub) -> None:
    hub.cut["model.safetensors"] = [700] + [0] * hub_models.TRIES
    created = submitted(http, model={"hub": MODEL}, steps=2, prompts_per_step=4, seed=0)
    wake()
    failed = job(created["id"])
    assert (failed.status, failed.reason) == (JobStatus.QUEUED, Reason.STORAGE_AWAY)
    assert HubUnavailable.__name__ in str(failed.message)
    hub.cut.clear()
    job_steps.run("UPDATE jobs SET not_before = now()")
    before = len(hub.ranges("model.safetensors"))
    wake()
    assert job(failed.id).status is JobStatus.SUCCEEDED
    assert hub.ranges("model.safetensors")[before:] == ["bytes=700-"]
    with session_scope() as session:
        messages = [str(event.message) for event in events.page(session, failed.id, after=0, limit=100)]
    folder = get_settings().job_dir(failed.id)
    files = [path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()]
    assert TOKEN not in log_text(failed.id) + "".join(messages) and not any(TOKEN.encode() in text for text in files)


def test_the_janitor_removes_models_that_no_job_uses(http: httpx.Client, hub: FakeHub) -> None:
    created = submitted(http, model={"hub": MODEL}, steps=2, prompts_per_step=4, seed=0)
    folder = HubSnapshot(MODEL, hub.commit, "default").path
    for path in (folder, folder.with_name(f"{'0' * 40}.partial")):
        path.mkdir(parents=True)
        (path / "model.safetensors").write_bytes(WEIGHTS)
        os.utime(path, (0, 0))

    def found() -> list[Finding]:
        return [one for one in janitor.find(get_settings()) if one.kind is Kind.HUB_MODEL]

    (partial,) = found()  # the other is named by the job
    assert partial.path == folder.with_name(f"{'0' * 40}.partial") and partial.bytes == len(WEIGHTS)
    assert janitor.remove([partial]) == [partial] and not partial.path.exists()
    http.post(f"/v1/jobs/{created['id']}/cancel")
    (complete,) = found()
    os.utime(folder)  # a job has started meanwhile
    assert (janitor.remove([complete]), found(), folder.is_dir()) == ([], [], True)
