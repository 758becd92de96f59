"""The record of a run: code, packages and hardware of this machine."""

import subprocess
from importlib import metadata
from pathlib import Path

from calibrl_core.run import surroundings


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_checkout_has_its_commit_and_its_state(tmp_path: Path) -> None:
    assert surroundings.code_version(tmp_path)["commit"] is None
    git(tmp_path, "init", "-q")
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-qm", "a")
    found = surroundings.code_version(tmp_path)
    assert (found["commit"], found["dirty"]) == (git(tmp_path, "rev-parse", "HEAD"), False)
    (tmp_path / "a.py").write_text("2")
    assert surroundings.code_version(tmp_path)["dirty"] is True
    assert found["version"] == metadata.version("calibrl")


def test_packages_and_processor_are_named() -> None:
    found = surroundings.packages()
    assert found["torch"] == metadata.version("torch")
    assert [*found] == sorted(found, key=str.lower)
    assert surroundings.processor()
