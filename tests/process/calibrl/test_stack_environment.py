"""The service that the processes of a local stack ask."""

from pathlib import Path

import pytest

from calibrl.stack.local import LocalStack
from tests.support.waiting import LIMIT_SECONDS


def test_a_stack_s_processes_ask_the_stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A dashboard that asks as dashboard/reads/service.py does, in a shell where a profile is chosen."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("CALIBRL_PROFILE", "lab")
    stack = LocalStack(tmp_path)
    (tmp_path / "logs").mkdir()
    code = "from calibrl.client import Client; print(Client(api_key='k').url)"
    command = ["timeit", "-n", "1", "-r", "1", code]  # a module that runs what it is given
    process = stack._run("asking", command, {"CALIBRL_API_URL": "http://127.0.0.1:1", "CALIBRL_API_KEY": "k"})
    assert process.wait(LIMIT_SECONDS) == 0, (tmp_path / "logs" / "asking.log").read_text()
    assert "http://127.0.0.1:1" in (tmp_path / "logs" / "asking.log").read_text()
