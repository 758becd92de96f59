"""Access of a confined process, and its end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from calibrl.schemas import GIB
from jobs.processes import sandbox
from tests.support import ROOT

PR_GET_DUMPABLE = 3
MODULE = """
import os, resource, sys, time
print(sorted(os.environ), sys.argv[1:], resource.getrlimit(resource.RLIMIT_CORE), flush=True)
match sys.argv[1]:
    case "memory": bytearray(2 * 2**30)
    case "time": time.sleep(600)
    case "fail": sys.exit(3)
"""

SECRETS = (
    *("DATABASE_URL", "REDIS_URL", "CALIBRL_API_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PGPASSWORD"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "AZURE_CLIENT_SECRET", "MLFLOW_TRACKING_TOKEN", "WANDB_API_KEY"),
    "OF_THE_SHELL",
)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "some_module.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    for name in SECRETS:
        monkeypatch.setenv(name, "a secret")
    return tmp_path / "log.txt"


def run(log: Path, what: str, seconds: int = 60) -> int | None:
    return sandbox.run("some_module", what, "b", log=log, memory=GIB, seconds=seconds)


def test_it_has_its_arguments_and_no_secrets(log: Path) -> None:
    assert run(log, "a") == 0
    said = log.read_text()
    assert "['a', 'b'] (0, 0)" in said
    assert "PATH" in said
    assert not any(name in said for name in SECRETS)


def test_it_ends_at_its_limits_and_says_how(log: Path) -> None:
    assert run(log, "fail") == 3
    assert run(log, "memory") == 1
    assert "MemoryError" in log.read_text()
    assert run(log, "time", seconds=1) is None


def test_a_private_process_keeps_its_environment_from_others_of_its_user() -> None:
    module = "calibrl_core.host.process_limits"
    program = f"import ctypes, {module}; {module}.keep_private(); print(ctypes.CDLL(None).prctl({PR_GET_DUMPABLE}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout == "0\n"
