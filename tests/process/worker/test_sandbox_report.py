"""How a machine reports that it runs functions of users."""

import shutil
from collections.abc import Iterator

import pytest

from calibrl_core.verifiers.sandbox import SandboxPolicy, sandbox_problem
from worker.machine_heartbeat import sandbox_report


@pytest.fixture(autouse=True)
def tried_again() -> Iterator[None]:
    sandbox_problem.cache_clear()
    yield
    sandbox_problem.cache_clear()


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_a_machine_with_bubblewrap_says_so() -> None:
    assert sandbox_report(SandboxPolicy()) == {"sandbox": "bubblewrap"}


def test_a_machine_without_it_runs_functions_only_if_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert sandbox_report(SandboxPolicy()) == {}
    assert sandbox_report(SandboxPolicy(plain_processes=True)) == {"sandbox": "plain processes"}
