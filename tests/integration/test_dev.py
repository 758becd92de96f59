"""`make dev`: a seeded service within one command, whose API reloads on a change of the sources."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from calibrl import Client
from calibrl.client import CalibrlError, read_stack
from tests.support import ROOT
from tests.support.processes import processes_with
from tests.support.waiting import LIMIT_SECONDS, eventually

pytestmark = pytest.mark.slow


def test_make_dev_shows_seeded_jobs_and_reloads(tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    log = tmp_path / "log"
    with log.open("wb") as output:
        dev = subprocess.Popen(
            [sys.executable, "-m", "tests.support.dev", str(folder)], cwd=ROOT, stdout=output, stderr=output
        )
    try:
        eventually(lambda: "Dashboard" in log.read_text() or dev.poll() is not None)
        assert dev.poll() is None, log.read_text()
        stack = read_stack(folder / "stack")
        assert stack is not None
        with Client(stack.api_url, stack.api_key) as client:
            statuses = {job.status for job in client.jobs().data}
            assert {"succeeded", "failed", "cancelled"} <= statuses
            api_log = folder / "stack" / "logs" / "api.log"
            os.utime(ROOT / "api" / "main.py")
            eventually(lambda: "Reloading" in api_log.read_text())
            eventually(lambda: answers(client))
    finally:
        dev.terminate()  # a shell lets processes in the background ignore SIGINT
        assert dev.wait(LIMIT_SECONDS) == 0, log.read_text()
    eventually(lambda: not processes_with(folder))


def answers(client: Client) -> bool:
    """Return if the API answers."""
    try:
        return bool(client.jobs().data)
    except CalibrlError:  # the API is between two processes
        return False
