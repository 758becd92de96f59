"""A job on two hosts with the real queue, launcher and trainer: it survives the loss of one."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from calibrl.processes import children
from calibrl.processes.children import Process
from calibrl.schemas import JobStatus, Reason, WorkerStatus
from jobs.db import session_scope
from jobs.lifecycle import machines
from jobs.repository import job_machines
from jobs.settings import get_settings
from tests.support import ROOT, hosts
from tests.support.job_steps import history, run_count, submit
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
