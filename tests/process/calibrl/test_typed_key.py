"""A key that a person types on a terminal."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from calibrl.client import profiles
from tests.support import ROOT
from tests.support.waiting import LIMIT_SECONDS

SECRET = "calibrl_of-the-lab"


def test_a_key_is_typed_without_being_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command runs on a pseudo-terminal."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "calibrl.cli", "profiles", "add", "lab", "--no-check", "--url", "http://x"]
    env = {"PATH": os.defpath, "XDG_CONFIG_HOME": str(tmp_path / "config"), "HOME": str(tmp_path)}
    typing = subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    said = b""
    while b"Key: " not in said:
        said += os.read(ours, 1000)
    os.write(ours, f"{SECRET}\n".encode())
    while b"added lab" not in said:
        said += os.read(ours, 1000)
    assert typing.wait(LIMIT_SECONDS) == 0
    os.close(ours)
    assert SECRET.encode() not in said
    assert profiles.named("lab").api_key.get_secret_value() == SECRET
