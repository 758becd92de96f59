"""The built wheel: what it installs, and the service started from it far from any checkout.

Dependencies are those of this environment: the tests need no network.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support import ROOT
from tests.support.processes import processes_with
from tests.support.waiting import LIMIT_SECONDS

pytestmark = pytest.mark.slow

SERVICE = ("api", "dashboard", "jobs", "migrations", "worker")
EXTRAS = ("celery", "numpy", "psycopg", "redis", "sqlalchemy", "streamlit", "torch", "transformers")
FOUND = "from importlib.util import find_spec; import sys; print(*[name for name in sys.argv[1:] if find_spec(name)])"
SHORT_RUN = """
import sys
from pathlib import Path
from calibrl import Client
from calibrl.stack.local import LocalStack
spec = {"kind": "evaluate", "name": "short", "models": [{"builtin": "tiny-vlm"}],
        "data": [{"builtin": "digits", "split": "test", "rows": 4}],
        "rollout": {"samples": 1, "greedy": False, "max_completion_tokens": 4}}
with LocalStack(Path(sys.argv[1])) as stack, Client(stack.api_url, stack.api_key) as client:
    print(client.submit(spec).wait().status)
"""
SHADOW = "raise SystemExit('a file of the current folder was imported')\n"


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would, without the variables of this test run."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CALIBRL_"))}
    for name in ("DATABASE_URL", "REDIS_URL"):
        inherited.pop(name, None)
    words = [str(word) for word in command]
    environment = inherited | environment
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=3 * LIMIT_SECONDS)


def output(*command: str | Path, cwd: Path, **environment: str) -> str:
    result = run(*command, cwd=cwd, **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    output(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


def fresh_environment(folder: Path, wheel: Path) -> Path:
    """Make a virtual environment with the wheel alone; return its site-packages."""
    output(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install")
    output(*pip, "--no-deps", "--no-index", "--quiet", wheel, cwd=folder.parent)
    (site,) = folder.glob("lib/python*/site-packages")
    return site


def required(name: str, seen: set[str]) -> Iterator[str]:
    """Yield the distributions that `name` requires without extras, and those that they require."""
    for text in importlib.metadata.requires(name) or []:
        requirement = Requirement(text)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and requirement.name not in seen:
            seen.add(requirement.name)
            yield requirement.name
            yield from required(requirement.name, seen)


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel and its required distributions, as links to this environment's."""
    folder = tmp_path_factory.mktemp("base") / "venv"
    site = fresh_environment(folder, wheel)
    for name in required("calibrl", set()):
        for file in importlib.metadata.files(name) or []:
            source, target = Path(str(file.locate())), site / file
            if ".." not in file.parts and source.exists() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(source)
    return folder / "bin"


def test_the_wheel_adds_two_top_level_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"calibrl", "calibrl_core"}
    service = {name.split("/")[2] for name in names if name.startswith("calibrl/_service/")}
    assert service == {*SERVICE, "alembic.ini"}
    assert {
        "calibrl/py.typed",
        "calibrl_core/py.typed",
        "calibrl/presets/calibrl.yaml",
        "calibrl/_service/dashboard/.streamlit/config.toml",
        "calibrl/_service/worker/accelerate.yaml",
    } <= {*names}


def test_a_base_installation_has_client_and_commands_only(base: Path, tmp_path: Path) -> None:
    assert output(base / "python", "-c", FOUND, *EXTRAS, *SERVICE, cwd=tmp_path).strip() == ""
    assert output(base / "calibrl", "--version", cwd=tmp_path).startswith("calibrl ")
    assert "algorithm" in output(base / "calibrl", "presets", "calibrl", cwd=tmp_path)
    assert "$defs" in output(base / "calibrl", "schema", cwd=tmp_path)
    assert output(base / "python", "-c", "import calibrl; print(calibrl.Client.__name__)", cwd=tmp_path) == "Client\n"


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (["calibrl", "up"], "local"),
        (["calibrl", "demo", "--exit"], "local"),
        (["python", "-m", "calibrl_core.train", "config.json", "--run-dir", "run"], "trainer"),
        (["python", "-m", "calibrl_core.evaluate", "config.json", "--run-dir", "run"], "trainer"),
    ],
)
def test_a_command_names_its_missing_extra(base: Path, tmp_path: Path, command: list[str], extra: str) -> None:
    result = run(base / command[0], *command[1:], cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.endswith(f": pip install 'calibrl[{extra}]'\n")


def test_make_release_accepts_a_tag_that_git_tag_makes(tmp_path: Path) -> None:
    """Only the check before the build runs: this checkout has no environment that could build."""
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.com")
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "a.txt").touch()
    output("git", "init", "--quiet", cwd=tmp_path)
    output("git", "add", ".", cwd=tmp_path)
    output(*git, "commit", "--quiet", "--message", "a", cwd=tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".installed").touch()
    refusal = "make: tag a clean commit first"
    assert refusal in run("make", "release", cwd=tmp_path).stderr
    output("git", "tag", "v1.2.3", cwd=tmp_path)
    assert refusal not in run("make", "release", cwd=tmp_path).stderr
    (tmp_path / "a.txt").write_text("changed")
    assert refusal in run("make", "release", cwd=tmp_path).stderr


@pytest.mark.timeout(4 * LIMIT_SECONDS)
def test_the_service_runs_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    site = fresh_environment(tmp_path / "venv", wheel)
    # A plain path: the .pth file there, which leads to the checkout, is not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    python = tmp_path / "venv" / "bin" / "python"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in SERVICE:
        (elsewhere / f"{name}.py").write_text(SHADOW)
    assert output(python, "-c", FOUND, *SERVICE, cwd=tmp_path).strip() == ""
    (tmp_path / "run.py").write_text(SHORT_RUN)
    data = tmp_path / "data"
    assert output(python, "../run.py", data, cwd=elsewhere, HOME=str(tmp_path)) == "succeeded\n", [
        log.read_text()[-2000:] for log in (data / "logs").glob("*.log")
    ]
    assert str(ROOT) not in (data / "logs" / "api.log").read_text()
    assert processes_with(data) == []
