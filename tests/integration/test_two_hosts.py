"""Jobs on two hosts with the real queue, launcher and trainer."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import make_url
from typer.testing import CliRunner

from calibrl import cli
from calibrl.processes import children
from calibrl.processes.children import Process
from calibrl.schemas import JobStatus, Reason, WorkerStatus
from calibrl_core.models.loading import load_model_processor
from jobs.db import session_scope
from jobs.lifecycle import machines
from jobs.repository import job_machines
from jobs.settings import get_settings
from tests.support import API_KEY, ROOT, documents, hosts
from tests.support.fake_hub import FakeHub, folder_files, serving_hub
from tests.support.job_steps import history, run_count, submit
from tests.support.qwen_guide import HUB_NAME, PAGE, join_traces, only_language_changed, write_data, write_twin
from tests.support.waiting import LIMIT_SECONDS, eventually
from tests.support.worker_jobs import ended, job, log_text, running_at, steps, trainers

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(3 * LIMIT_SECONDS),
    pytest.mark.skipif(not hosts.can_make_hosts(), reason="network namespaces need root and the program ip"),
]
QUICK = {
    "CALIBRL_HEARTBEAT_SECONDS": "0.5",
    "CALIBRL_LEASE_SECONDS": "20",
    "CALIBRL_SWEEP_SECONDS": "1",
    "CALIBRL_QUICK_STARTS": "false",
    "CALIBRL_WORKER_GPUS": "none",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
}
SPEC: dict[str, Any] = {
    "algorithm": {"type": "calibrl", "mini_batches": 1},
    "rollout": {"group_size": 2, "max_completion_tokens": 6},
    "prompts_per_step": 2,
    "steps": 20,
    "checkpoints": {"every_steps": 2},
    "parallel": "fsdp",
    "resources": {"machines": 2},
}


@pytest.fixture
def worker(
    database: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Process]]:
    """Yield a function that starts the worker of the host a or b. They reach the services by the network only."""
    monkeypatch.chdir(ROOT)
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    with ExitStack() as stack:
        prefixes = stack.enter_context(hosts.hosts("a", "b"))
        urls = {}
        for name, url in (("DATABASE_URL", database), ("REDIS_URL", redis_url)):
            parts = make_url(url)
            port = stack.enter_context(hosts.forwarded(int(parts.port or 0)))
            urls[name] = parts.set(host=hosts.GATEWAY, port=port).render_as_string(hide_password=False)
        started: list[Process] = []

        def start(name: str) -> Process:
            command = [*prefixes[name], sys.executable, "-m", "celery", "-A", "worker.tasks", "worker"]
            command += ["--without-mingle", "-n", f"{name}@%h"]
            environment = dict(os.environ) | urls | {"CALIBRL_WORKER_NAME": name}
            started.append(children.start(command, log=tmp_path / f"{name}.log", env=environment))
            return started[-1]

        yield start
        for process in started:
            children.stop(process, 0)


def online() -> list[str]:
    with session_scope() as session:
        return [one.name for one in machines.page(session, after="", limit=10) if one.status is WorkerStatus.ONLINE]


def test_a_job_on_two_hosts_goes_on_after_the_loss_of_one(worker: Callable[[str], Process]) -> None:
    worker("a")
    second = worker("b")
    eventually(lambda: online() == ["a", "b"])
    job_id = submit(**SPEC)
    running_at(job_id, 5)
    with session_scope() as session:
        (main, part) = job_machines.of_job(session, job_id)
        assert (main.worker, part.worker) == ("a", "b")
        assert str(main.endpoint).startswith(f"{hosts.NETWORK}.2:")
    children.kill_group(second)
    second.wait(LIMIT_SECONDS)
    eventually(lambda: job(job_id).status is not JobStatus.RUNNING)
    eventually(lambda: trainers(job_id) == [])
    assert (job(job_id).status, job(job_id).reason) == (JobStatus.QUEUED, Reason.LOST_WORKER)
    assert history(job_id)[-1].message == "no heartbeat of worker b in time (attempt 1)"
    worker("b")
    found = ended(job_id)
    assert (found.status, found.attempt) == (JobStatus.SUCCEEDED, 2), log_text(job_id)
    assert steps(job_id) == [*range(1, 21)]
    assert run_count("SELECT first_step FROM attempts WHERE number = 2") >= 4


@pytest.fixture
def guide(http: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Follow the guide up to its files; yield a hub with the twin of the model, and with what was asked of it."""
    write_twin(tmp_path / "model")
    folder = tmp_path / "geometry"
    folder.mkdir()
    write_data(folder)
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        join_traces(folder)
    with serving_hub(HUB_NAME, folder_files(tmp_path / "model")) as hub:
        yield hub


def command_for_two_machines(folder: Path) -> list[str]:
    """Return the words of the guide's command, with sizes that take seconds, and without `calibrl`."""
    (words,) = [
        words
        for block, words in documents.command_lines()
        if block.path == PAGE and "resources.machines=2" in words and words[1] == "submit"
    ]
    words = [word.replace("/path/", f"{folder}/") for word in words[1:]]
    small = {"prompts_per_step": 4, "steps": 2, "rollout.group_size": 2, "rollout.max_completion_tokens": 6}
    one_process_each = {"resources.gpus": 0, "shard_size": 2}
    # A random model is never right. This reward varies, so that there is something to learn.
    varying = {"rewards": '[{type: text_similarity, reference: "abcdefghijklmnop 0123456789", weight: 1.0}]'}
    changes = [f"{name}={value}" for name, value in (small | one_process_each | varying).items()]
    return [*words, *(word for change in changes for word in ("--set", change))]


def test_the_guides_job_trains_a_model_of_the_hub_on_two_hosts(
    worker: Callable[[str], Process],
    guide: FakeHub,
    http: httpx.Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with hosts.forwarded(int(make_url(guide.url).port or 0)) as port:
        guide.store = f"http://{hosts.GATEWAY}:{port}"
        for name, value in {
            "HF_ENDPOINT": guide.store,
            "CALIBRL_ALLOWED_HUB_MODELS": "Qwen/*",
            "CALIBRL_ALLOWED_ROOTS": str(tmp_path),
            "CALIBRL_API_URL": str(http.base_url),
            "CALIBRL_API_KEY": API_KEY,
        }.items():
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()
        worker("a")
        worker("b")
        eventually(lambda: online() == ["a", "b"])
        asked = CliRunner().invoke(cli.app, [*command_for_two_machines(tmp_path), "--json"])
        assert asked.exit_code == 0, asked.output
        job_id = UUID(json.loads(asked.stdout)["id"])
        running_at(job_id, 0)
        with session_scope() as session:
            assert [part.worker for part in job_machines.of_job(session, job_id)] == ["a", "b"]
        found = ended(job_id)
        assert found.status is JobStatus.SUCCEEDED, log_text(job_id)
    assert found.spec["model"]["revision"] == guide.commit
    shards = [name for name in guide.files if name.endswith(".safetensors")]
    assert len(shards) > 1 and all(guide.ranges(name) for name in shards)
    assert steps(job_id) == [0, 1, 2]  # a validation before training
    checkpoint = get_settings().run_dir(job_id, 1) / "checkpoints/step-000002"
    assert type(load_model_processor(str(checkpoint))).__name__ == "Qwen2_5_VLProcessor"
    only_language_changed(tmp_path / "model", checkpoint)
