"""The built wheel: what a base installation holds, and the service started from it far from any checkout."""

import importlib.metadata
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from calibrl.client import Client
from calibrl.schemas import JobStatus
from tests.support import ROOT
from tests.support.processes import processes_with
from tests.support.waiting import LIMIT_SECONDS

pytestmark = pytest.mark.slow

SERVICE = ("api", "dashboard", "jobs", "migrations", "worker")
ABSENT = ("celery", "numpy", "psycopg", "redis", "sqlalchemy", "streamlit", "torch")
# Starts the stack of the wheel, runs one job, and prints the folder of the API's code as the API itself sees it.
SHORT_RUN = """
import sys
from pathlib import Path
from calibrl import Client
from calibrl.stack.local import LocalStack
with LocalStack(Path(sys.argv[1]), dashboard=True) as stack, Client(stack.api_url, stack.api_key) as client:
    spec = {"kind": "evaluate", "name": "short", "models": [{"builtin": "tiny-vlm"}],
            "data": [{"builtin": "digits", "split": "test", "rows": 4}], "rollout": {"samples": 1, "greedy": False,
            "max_completion_tokens": 4}}
    print(client.ready().ok, client.submit(spec).wait().status)
"""


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user far from the checkout would: without this process's import path."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CALIBRL_"))}
    return subprocess.run(
        [*map(str, command)], cwd=cwd, env=inherited | environment, capture_output=True, text=True, timeout=LIMIT_SECONDS
    )


def done(*command: str | Path, cwd: Path, **environment: str) -> str:
    result = run(*command, cwd=cwd, **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    done(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


def environment_with(folder: Path, wheel: Path) -> Path:
    """Make a virtual environment with the wheel and nothing it depends on; return its site-packages."""
    done(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    (site,) = folder.glob("lib/python*/site-packages")
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python")
    done(*pip, "install", "--no-deps", "--no-index", "--quiet", wheel, cwd=folder.parent)
    return site


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a virtual environment with the wheel and, as links, the distributions that it requires."""
    folder = tmp_path_factory.mktemp("base") / "venv"
    site = environment_with(folder, wheel)
    for name in requirements("calibrl"):
        for file in importlib.metadata.files(name) or []:
            source, target = Path(str(file.locate())), site / str(file)
            if ".." not in Path(str(file)).parts and "__pycache__" not in file.parts and source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source)
    return folder
