"""Processes that start without the trainer's libraries."""

import subprocess
import sys

import pytest

from tests.support import ROOT
from tests.support.waiting import LIMIT_SECONDS


@pytest.mark.parametrize(
    "module",
    [
        "api.main",
        "calibrl.schemas",
        "jobs.lifecycle",
        "worker.tasks",
        "calibrl.cli",
        "calibrl.commands.demo",
        "calibrl_core.bootstrap",
        "calibrl_core.rescore",
    ],
)
def test_the_service_runs_without_torch(module: str) -> None:
    libraries = "{'torch', 'transformers', 'streamlit'}"
    code = f"import sys, {module}; print(*sorted({libraries} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, "", "")
