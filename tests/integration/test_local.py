"""The local stack as a whole, in a separate process that is interrupted and killed."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from calibrl.client import CalibrlError, Client
from calibrl.schemas import Job, JobStatus
from calibrl.stack.local import LocalStack, StackError
from jobs.settings import get_settings
from tests.support import ROOT
from tests.support.processes import processes_with
from tests.support.waiting import LIMIT_SECONDS, eventually

pytestmark = pytest.mark.e2e

OWNER = """
import signal, sys, time
from pathlib import Path
from calibrl.stack.local import LocalStack
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where the tests run in the background of a script
try:
    with LocalStack(Path(sys.argv[1])) as stack:
        print("ready", flush=True)
        while True:
            stack.check()
            time.sleep(0.1)
except KeyboardInterrupt:
    pass
"""
SPEC = {
    "kind": "train",
    "name": "long enough",
    "model": {"builtin": "tiny-vlm"},
    "data": {"builtin": "digits"},
    "algorithm": {"type": "grpo", "mini_batches": 1},
    "prompts_per_step": 50,
    "steps": 100,
    "checkpoints": {"every_steps": 5},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("DATABASE_URL", "REDIS_URL", "CALIBRL_API_KEY", "CALIBRL_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CALIBRL_TRAINER", "tests.support.fake_trainer")
    monkeypatch.setenv("CALIBRL_LEASE_SECONDS", "3")
    monkeypatch.setenv("CALIBRL_SWEEP_SECONDS", "0.5")
    monkeypatch.chdir(ROOT)
    get_settings.cache_clear()
    yield tmp_path / "a data folder"
    get_settings.cache_clear()


def start(folder: Path) -> subprocess.Popen[bytes]:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert owner.stdout
    if owner.stdout.readline() != b"ready\n":
        pytest.fail(owner.communicate(timeout=LIMIT_SECONDS)[1].decode())
    return owner


def kill(stack: LocalStack, name: str) -> None:
    """Kill a process of the stack, and let the stack find out."""
    process = next(kept.process for kept in stack._running if kept.name == name)
    os.kill(process.pid, signal.SIGKILL)
    (said,) = eventually(stack.restart_ended)
    assert said.startswith(f"{name} has ended: ") and said.endswith("; it was started again")


def answers(stack: LocalStack) -> bool:
    """Return if the API answers, and reaches its database and its queue."""
    try:
        return httpx.get(f"{stack.api_url}/readyz", timeout=LIMIT_SECONDS).is_success
    except httpx.TransportError:
        return False


def submitted(client: Client) -> Job | None:
    """Submit a job; None if the API has lost its database and has not noticed that before."""
    try:
        return client.submit(SPEC)
    except CalibrlError:
        return None


@pytest.mark.slow
def test_a_job_outlives_a_killed_stack_and_ctrl_c_leaves_nothing(folder: Path) -> None:
    killed = start(folder)
    with Client(data_dir=folder) as client:
        job = client.submit(SPEC)
        eventually(lambda: client.job(job.id).step >= 12)
    # PostgreSQL, Valkey, API, dashboard, worker and its pool process, trainer, and this stack itself.
    assert len(processes_with(folder)) >= 8
    killed.kill()
    killed.communicate(timeout=LIMIT_SECONDS)
    eventually(lambda: processes_with(folder) == [])

    again = start(folder)
    with Client(data_dir=folder) as client:
        assert client.job(job.id).step >= 10
        eventually(lambda: client.job(job.id).status.final)
        done = client.job(job.id)
        assert (done.status, done.attempt) == (JobStatus.SUCCEEDED, 2), done.message
        rows = client.metrics(job.id, after_step=-1, limit=1000).data
        assert [row.step for row in rows] == list(range(1, 101))
        unfinished = client.submit(SPEC)
        eventually(lambda: client.job(unfinished.id).step >= 3)
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=LIMIT_SECONDS)
    assert again.returncode == 0
    assert processes_with(folder) == []
    assert not (folder / "stack.json").exists()
    # The trainer got a stop signal first and wrote a checkpoint.
    lines = (folder / "runs" / str(unfinished.id) / "attempt-1" / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["type"] for line in lines[-2:]] == ["checkpoint", "finish"]


@pytest.mark.slow
def test_a_process_that_ends_is_started_again_at_its_address(folder: Path) -> None:
    with LocalStack(folder) as stack, Client(data_dir=folder) as client:
        stack.check()
        said = json.loads((folder / "stack.json").read_text())
        addresses = {"api_url": stack.api_url, "dashboard_url": stack.dashboard_url, "api_key": stack.api_key}
        assert said == addresses | {"pid": os.getpid()} | {name: said[name] for name in ("database_url", "redis_url")}
        with pytest.raises(StackError, match="in use by another running stack"), LocalStack(folder):
            pass
        closed = {path.name for path in get_settings().closed_folders}
        assert {path.name for path in folder.iterdir() if path.stat().st_size} <= closed  # not the empty lock file
        job = client.submit(SPEC)
        eventually(lambda: client.job(job.id).step >= 3)
        kill(stack, "api")
        eventually(lambda: client.job(job.id).status is JobStatus.SUCCEEDED if answers(stack) else False)
        assert client.job(job.id).attempt == 1  # its training went on without the API
        for name in ("worker", "valkey", "postgres"):
            kill(stack, name)
        eventually(lambda: answers(stack))
        second = eventually(lambda: submitted(client))
        assert second is not None
        id = second.id
        eventually(lambda: client.job(id).status is JobStatus.SUCCEEDED)
    assert processes_with(folder) == []


@pytest.mark.slow
def test_key_and_ports_outlive_a_restart(folder: Path, tmp_path: Path) -> None:
    with LocalStack(folder) as first, LocalStack(tmp_path / "other", dashboard=False) as other:
        assert other.api_url != first.api_url
    with LocalStack(folder) as again:
        assert (again.api_url, again.dashboard_url) == (first.api_url, first.dashboard_url)
        assert again.api_key == first.api_key
    assert (folder / "identity.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_a_detached_stack_is_seen_and_stopped(folder: Path, tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "calibrl.cli", *words, "--data", str(folder)]
        return subprocess.run(command, capture_output=True, text=True, timeout=2 * LIMIT_SECONDS)

    assert run("status").returncode == 1
    started = run("up", "--detach")
    assert started.returncode == 0, started.stderr
    try:
        assert "calibrl down --data" in started.stdout
        shown = run("status")
        assert shown.returncode == 0 and "API, database and queue answer." in shown.stdout
        stack = json.loads((folder / "stack.json").read_text())
        assert f"export CALIBRL_API_KEY={stack['api_key']}\n" in run("env").stdout
        assert f"export DATABASE_URL={stack['database_url']}\n" in run("env", "--worker").stdout.replace("'", "")
        again = run("up", "--detach")
        assert again.returncode == 1 and "in use by another running stack" in again.stderr
    finally:
        assert run("down").stdout == "Stopped. No process is left.\n"
    assert eventually(lambda: processes_with(folder) == [])
    assert run("down").stdout == f"No service runs on {folder}.\n"


def test_a_used_port_is_named_in_one_line(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for ports in ({"api_port": port}, {"dashboard_port": port}):
            with pytest.raises(StackError, match=f"port {port} can't be used") as caught, LocalStack(folder, **ports):
                pass
            assert "\n" not in str(caught.value)
    assert processes_with(folder) == []


@pytest.mark.slow
def test_addresses_in_the_environment_replace_the_embedded_servers(
    folder: Path, database: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("REDIS_URL", redis_url)
    get_settings.cache_clear()
    with LocalStack(folder, dashboard=False) as stack, Client(data_dir=folder) as client:
        assert stack.dashboard_url is None
        assert client.ready().ok
        job = client.submit(SPEC | {"steps": 2})
        eventually(lambda: client.job(job.id).status is JobStatus.SUCCEEDED)
    assert not (folder / "postgres").exists() and not (folder / "valkey").exists()
