"""The command line against the whole stack that `calibrl up` runs, with the trainer that needs no torch."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from typer.testing import CliRunner, Result
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from calibrl import cli
from calibrl.client import STACK_FILE, Client
from calibrl.schemas import JobStatus
from tests.support.local_stack import start
from tests.support.processes import processes_with
from tests.support.waiting import LIMIT_SECONDS, eventually

pytestmark = pytest.mark.e2e

SPEC = """
kind: train
name: from a file
model: {builtin: tiny-vlm}
data: {builtin: digits}
algorithm: {type: calibrl, mini_batches: 1}
prompts_per_step: 20   # milliseconds per step, to this trainer
steps: 40
"""


def calibrl(folder: Path, *arguments: str) -> Result:
    """Run a command to its end, asking the stack on `folder`."""
    return CliRunner().invoke(cli.app, [*arguments, "--data", str(folder)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data folder of a running stack, which SIGTERM then stops."""
    folder = tmp_path_factory.mktemp("with space") / "a folder"
    up = start(folder)
    yield folder
    up.terminate()
    out, err = up.communicate(timeout=LIMIT_SECONDS)
    assert (up.returncode, err) == (0, "")
    for part in ("http://127.0.0.1:", str(folder / "logs"), f"--data '{folder}'", "Stopped. No process is left."):
        assert part in out
    assert processes_with(folder) == []


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = tmp_path / "spec.yaml"
    file.write_text(SPEC)
    return file


def test_a_job_from_submit_to_its_log(folder: Path, spec: Path) -> None:
    submitted = calibrl(folder, "submit", str(spec), "--set", "labels.team=vision")
    assert submitted.exit_code == 0
    id = submitted.stdout.strip()
    assert f"/job?id={id}" in submitted.stderr and f"calibrl watch {id[:8]} --data" in submitted.stderr

    watched = calibrl(folder, "watch", id[:13])
    assert (watched.exit_code, watched.stderr) == (0, "")
    assert watched.stdout.splitlines()[-1] == f"{id} from a file: succeeded, step 40/40"

    listed = calibrl(folder, "jobs", "--status", "succeeded", "--json")
    assert [(job["id"], job["labels"]) for job in json.loads(listed.stdout)] == [(id, {"team": "vision"})]
    assert id[:8] in calibrl(folder, "jobs").stdout
    shown = calibrl(folder, "show", "latest").stdout
    assert all(part in shown for part in (id, "succeeded", "submitted", "step-000040", "accuracy:"))
    assert "step 40" in calibrl(folder, "logs", id, "--follow").stdout


def test_a_running_job_is_cancelled(folder: Path, spec: Path) -> None:
    id = calibrl(folder, "submit", str(spec), "--set", "steps=100000").stdout.strip()
    with Client(data_dir=folder) as client:
        eventually(lambda: client.job(id).status is JobStatus.RUNNING)
    assert calibrl(folder, "cancel", id).exit_code == 0
    watched = calibrl(folder, "watch", id)
    assert watched.exit_code == 1
    assert "cancelled (user)" in watched.stdout.splitlines()[-1]
    again = calibrl(folder, "cancel", id)
    assert (again.exit_code, again.stderr.count("\n")) == (1, 1)


def test_the_queue_is_seen_paused_and_drained(folder: Path, spec: Path) -> None:
    """The stack has one CPU slot."""
    first, second = (calibrl(folder, "submit", str(spec), "--set", f"steps={n}").stdout.strip() for n in (300, 20))
    gate = folder / "runs" / first / "hold-step-200"
    gate.parent.mkdir(parents=True, exist_ok=True)
    gate.touch()  # the job does not end before it is paused
    with Client(data_dir=folder) as client:
        eventually(lambda: client.job(first).step > 0)
        (entry,) = json.loads(calibrl(folder, "queue", "--json").stdout)
        assert (entry["job_id"], entry["position"], entry["reason"]) == (second, 1, "busy")
        assert "position 1: waiting for a free CPU slot" in calibrl(folder, "show", second).stdout

        (machine,) = json.loads(calibrl(folder, "workers", "--json").stdout)
        assert (machine["status"], machine["jobs"]) == ("online", [first])
        assert calibrl(folder, "drain", machine["name"]).stdout == f"{machine['name']}: draining, runs 1 job\n"
        assert calibrl(folder, "pause", first).stdout.startswith(f"{first} from a file: pausing (user), step ")
        eventually(lambda: client.job(first).status is JobStatus.PAUSED)
        assert json.loads(calibrl(folder, "queue", "--json").stdout)[0]["reason"] == "no_machine"
        assert calibrl(folder, "undrain", machine["name"]).exit_code == 0
        assert calibrl(folder, "watch", second).exit_code == 0
        again = calibrl(folder, "pause", first)
        assert (again.exit_code, again.stderr) == (1, f"calibrl: Conflict: Job {first} is already paused.\n")

        gate.unlink()
        assert calibrl(folder, "resume", first).exit_code == 0
        assert calibrl(folder, "watch", first).stdout.splitlines()[-1].endswith("succeeded, step 300/300")
        assert client.job(first).attempt == 2
        assert [row.step for row in client.metrics(first).data] == list(range(1, 301))
    assert float(json.loads(calibrl(folder, "usage", "--json").stdout)[0]["slot_hours"]) > 0


def test_a_bad_spec_is_refused_field_by_field(folder: Path, spec: Path) -> None:
    refused = calibrl(folder, "submit", str(spec), "--set", "rollout.group_size=1", "--set", "stepps=3")
    assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (2, "", 3)
    assert "rollout.group_size: " in refused.stderr
    assert "stepps: " in refused.stderr


def test_a_data_file_is_searched_in_the_folder_of_the_spec(folder: Path) -> None:
    spec = folder / "specs" / "own.yaml"  # jobs can read the data folder
    spec.parent.mkdir()
    spec.write_text(SPEC.replace("builtin: digits", "path: rows.jsonl"))
    refused = calibrl(folder, "submit", str(spec))
    assert refused.exit_code == 2
    assert f"data.path: there is no file {spec.with_name('rows.jsonl')}" in refused.stderr


def test_a_second_stack_on_the_folder_is_refused(folder: Path) -> None:
    refused = calibrl(folder, "up")
    assert refused.exit_code == 1
    assert (
        refused.stderr
        == f"calibrl: {folder} is in use by another running stack; stop that one or choose another folder\n"
    )


def test_the_stack_admits_its_owner_only(folder: Path) -> None:
    file = folder / STACK_FILE
    assert file.stat().st_mode & 0o077 == 0
    stack = json.loads(file.read_text())
    assert stack.keys() == {"api_url", "dashboard_url", "api_key", "pid", "database_url", "redis_url"}
    assert httpx.get(f"{stack['api_url']}/v1/jobs", trust_env=False).status_code == 401
    _check_door(stack["dashboard_url"])
    token = stack["dashboard_url"].rpartition("=")[2]
    assert token not in (folder / "logs" / "dashboard.log").read_text()
    names = {path.stem for path in (folder / "logs").iterdir()}
    assert {"api", "worker", "dashboard", "postgres", "valkey", "migrations"} <= names


def _check_door(address: str) -> None:
    """The printed address signs in; the bare port, and another host's name, do not."""
    origin = address.partition("/signin")[0]
    with httpx.Client(trust_env=False, timeout=LIMIT_SECONDS) as stranger:
        assert stranger.get(f"{origin}/files/{UUID(int=1)}/log.txt").status_code == 401
        assert stranger.get(f"{origin}/signin?token=guessed").status_code == 401
    with httpx.Client(trust_env=False, timeout=LIMIT_SECONDS) as owner:
        assert owner.get(address).status_code == 303 and "calibrl_session" in owner.cookies
        assert owner.get(f"{origin}/files/{UUID(int=1)}/log.txt").status_code == 404  # signed in; there is no such job
        cookie = {"Cookie": f"calibrl_session={owner.cookies['calibrl_session']}"}
    port = int(origin.rpartition(":")[2])
    for name, allowed in (("127.0.0.1", True), ("evil.example", False)):  # a name that was led to this address
        with nullcontext() if allowed else pytest.raises(InvalidStatus, match="403"):
            stream = socket.create_connection(("127.0.0.1", port), 30)
            url, offered = f"ws://{name}:{port}/_stcore/stream", [Subprotocol("streamlit")]
            with connect(url, sock=stream, subprotocols=offered, additional_headers=cookie):
                pass


@pytest.mark.slow
def test_up_starts_a_process_that_ends_again(tmp_path: Path) -> None:
    up = start(tmp_path)
    api = next(pid for pid in processes_with(tmp_path) if b"uvicorn" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(api, signal.SIGKILL)
    assert up.stderr is not None
    said = up.stderr.readline()
    assert said.startswith("calibrl: api has ended: ") and said.endswith("; it was started again\n")
    up.send_signal(signal.SIGINT)
    err = up.communicate(timeout=LIMIT_SECONDS)[1]
    assert (up.returncode, err) == (0, "")
    assert processes_with(tmp_path) == []
