"""Jobs on uploaded datasets, from the upload to the trainer's config; the trainer is the fake one."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import fsspec
import httpx
import pytest

from calibrl.schemas import JobStatus, Reason
from calibrl_core import data
from calibrl_core.config import EvaluateConfig, TrainConfig
from jobs import lifecycle
from jobs.db import session_scope
from jobs.errors import StorageUnavailable
from jobs.files import datasets
from jobs.files.storage import Storage
from jobs.lifecycle import Claim, Order
from jobs.repository import jobs
from jobs.settings import get_settings
from tests.support import ROOT, job_steps
from tests.support.rest import serving
from tests.support.worker import wake
from worker.standby import Standby
from worker.supervisor import Supervisor
from worker.trainer_process import child_environment

pytestmark = pytest.mark.integration
ROWS = [{"question": f"What is {n}?", "answer": n, "expert": f"It is {n}."} for n in range(8)]
CONTENT = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
MEMORY = "memory://bucket"


@pytest.fixture(params=["folder", MEMORY])
def api(request: pytest.FixtureRequest, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """The API and a machine that takes jobs, both with storage of either kind."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("CALIBRL_TRAINER", "tests.support.fake_trainer")
    monkeypatch.setenv("CALIBRL_QUICK_STARTS", "false")
    monkeypatch.setenv("CALIBRL_WORKER_NAME", "tester")
    if request.param == MEMORY:
        monkeypatch.setenv("CALIBRL_STORAGE", MEMORY)
    get_settings.cache_clear()
    job_steps.machine("tester", cpu_slots=1)
    with serving() as client:
        yield client
    fsspec.filesystem("memory").store.clear()


def uploaded(api: httpx.Client, content: bytes = CONTENT, name: str = "my-set") -> str:
    answer = api.post("/v1/datasets/upload", params={"name": name}, content=content)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def train(dataset: str, **changes: Any) -> UUID:
    return job_steps.submit(
        data={"dataset": dataset, "rows": 6},
        validation={"data": {"dataset": dataset}, "samples": 1},
        algorithm={"type": "grpo", "mini_batches": 1},
        prompts_per_step=10,
        **changes,
    )


def config(job_id: UUID) -> str:
    return (get_settings().run_dir(job_id, 1) / "config.json").read_text()


def test_a_job_trains_on_the_uploaded_dataset(api: httpx.Client) -> None:
    dataset = uploaded(api)
    job_id = train(dataset)
    other = uploaded(api, CONTENT[:-1], "other")
    spec = {"kind": "evaluate", "name": "e", "models": [{"builtin": "tiny-vlm"}]}
    evaluation = job_steps.submit_spec(spec | {"data": [{"dataset": dataset}, {"dataset": other, "rows": 2}]})
    wake()
    assert [job_steps.status(id) for id in (job_id, evaluation)] == [JobStatus.SUCCEEDED] * 2
    trained = TrainConfig.model_validate_json(config(job_id))
    examples = data.load(trained.sources[0])
    assert [(one.id, one.answer) for one in examples] == [(f"my-set/{n + 1}", str(n)) for n in range(6)]
    assert trained.validation is not None and len(data.load(trained.validation.data)) == 8
    sources = EvaluateConfig.model_validate_json(config(evaluation)).data
    assert [(source.name, len(data.load(source))) for source in sources] == [("my-set", 8), ("other", 2)]
    assert api.delete(f"/v1/datasets/{dataset}").status_code == 204  # all its jobs have ended


def claimed(job_id: UUID) -> Claim:
    with session_scope() as session:
        found = lifecycle.claim(session, worker="tester")
    assert found is not None and found.job_id == job_id
    return found


def supervisor(claim: Claim) -> Supervisor:
    return Supervisor(claim, get_settings(), Standby(get_settings(), child_environment(())))


def test_a_file_that_is_gone_or_damaged_fails_the_job(api: httpx.Client) -> None:
    dataset = uploaded(api)
    job_id = train(dataset)
    storage = Storage(get_settings().storage_url)
    storage.delete(f"datasets/{dataset}.jsonl")
    wake()
    with session_scope() as session:
        job = jobs.get(session, job_id)
    assert (job.status, job.reason) == (JobStatus.FAILED, Reason.CRASHED)
    assert f"dataset {dataset} is missing in storage" in str(job.message)


@pytest.mark.parametrize("api", [MEMORY], indirect=True)
def test_a_copy_is_checked_kept_and_used_again(api: httpx.Client, tmp_path: Path) -> None:
    dataset = uploaded(api)
    (tmp_path / "evil").write_bytes(CONTENT.replace(b"0", b"1"))
    storage = Storage(MEMORY)
    (file,) = claimed(train(dataset)).files
    assert file.path == str(tmp_path / "cache" / "datasets" / f"{sha256(CONTENT).hexdigest()}.jsonl")
    storage.put(file.key, tmp_path / "evil")
    with pytest.raises(StorageUnavailable, match="damaged"):
        list(datasets.fetch_to_machine(file))
    assert not Path(file.path).exists()
    (tmp_path / "right").write_bytes(CONTENT)
    storage.put(file.key, tmp_path / "right")
    list(datasets.fetch_to_machine(file))
    assert Path(file.path).read_bytes() == CONTENT
    storage.delete(file.key)
    list(datasets.fetch_to_machine(file))


@pytest.mark.parametrize("api", [MEMORY], indirect=True)
def test_a_job_can_be_ended_while_its_data_is_fetched(api: httpx.Client) -> None:
    dataset = uploaded(api)
    cancelled, paused = train(dataset), train(dataset)
    claim = claimed(cancelled)
    assert job_steps.cancel(cancelled) is JobStatus.CANCELLING
    one = supervisor(claim)
    one.run()
    assert (one.lease.order, job_steps.status(cancelled)) == (Order.CANCEL, JobStatus.CANCELLED)
    claim = claimed(paused)
    with session_scope() as session:
        lifecycle.pause(session, paused, actor="user")
    supervisor(claim).run()
    assert job_steps.status(paused) is JobStatus.PAUSED
    with session_scope() as session:
        lifecycle.resume(session, paused, actor="user")
    wake()
    assert job_steps.status(paused) is JobStatus.SUCCEEDED


@pytest.mark.parametrize("api", ["folder"], indirect=True)
def test_a_retry_with_a_deleted_dataset_fails_with_a_sentence(api: httpx.Client) -> None:
    dataset = uploaded(api)
    job_id = train(dataset)
    job_steps.cancel(job_id)
    assert api.delete(f"/v1/datasets/{dataset}").status_code == 204
    with session_scope() as session:
        lifecycle.retry(session, job_id, actor="user")
    wake()
    with session_scope() as session:
        job = jobs.get(session, job_id)
    assert (job.status, job.reason, job.message) == (
        JobStatus.FAILED,
        Reason.BAD_SPEC,
        f"dataset {dataset} was deleted",
    )
