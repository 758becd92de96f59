"""Every process's log is JSON, one line per event."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import LIMIT_SECONDS

ROOT = Path(__file__).parents[3]
SETTINGS = {
    "DATABASE_URL": "postgresql://nowhere/none",
    "REDIS_URL": "redis://127.0.0.1:1",
    "CALIBRL_WORKER_GPUS": "none",
}
WORKER = """
import logging, structlog
from worker import tasks
tasks.app.log.setup(loglevel=logging.INFO)
structlog.get_logger().info("ours", job="j")
logging.getLogger("celery.worker").info("theirs %s", 1)
try:
    raise OSError("disk")
except OSError:
    logging.getLogger("celery").exception("broken")
"""
UVICORN = """
import logging, uvicorn
uvicorn.Config("api.main:app")
import api.main
logging.getLogger("uvicorn.error").info("Started server process [%d]", 7)
logging.getLogger("uvicorn.access").info("never")
"""


def logged(program: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECONDS
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stderr.splitlines()]


@pytest.mark.slow
def test_loggers_of_the_worker_and_of_celery(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs, broken = logged(WORKER, monkeypatch)
    assert (ours["event"], ours["job"], ours["level"]) == ("ours", "j", "info") and ours["timestamp"]
    assert (theirs["event"], theirs["logger"], theirs["level"]) == ("theirs 1", "celery.worker", "info")
    assert theirs["timestamp"] and "OSError: disk" in broken["exception"]


@pytest.mark.slow
def test_loggers_of_uvicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = logged(UVICORN, monkeypatch)
    assert (line["event"], line["logger"], line["level"]) == ("Started server process [7]", "uvicorn.error", "info")
