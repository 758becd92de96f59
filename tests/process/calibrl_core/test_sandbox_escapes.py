"""Attempts to leave the sandbox: none succeeds, and the verdict after it is right."""

import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.verifiers.sandbox import GradeError, Sandbox
from tests.support.escapes import ESCAPES, GRADER

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Yield what exists outside the sandbox, with its names."""
    secret = tmp_path_factory.mktemp("host") / "secret"
    secret.write_text("marker of the host")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        name = uuid.uuid4().hex
        abstract.bind(b"\0" + name.encode())
        abstract.listen()
        os.environ["CALIBRL_TEST_SECRET"] = "secret"
        yield {
            "secret": str(secret),
            "marker": secret.read_text(),
            "project": str(Path(__file__).parents[3]),
            "port": server.getsockname()[1],
            "name": name,
            "variable": "CALIBRL_TEST_SECRET",
            "process": os.getpid(),
        }
        del os.environ["CALIBRL_TEST_SECRET"]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(GRADER, memory_bytes=2**29, seconds=1) as started:
        yield started


def test_there_are_enough_attempts() -> None:
    assert len(ESCAPES) >= 60


@pytest.mark.parametrize("name", ESCAPES)
def test_an_attempt_to_escape_fails(name: str, sandbox: Sandbox, outside: dict[str, Any]) -> None:
    assert sandbox.grade({"right": 0.25, "before": "earlier-truth"}, {"answer": "earlier-truth"}) == 0.25
    try:
        found = sandbox.grade({"attack": ESCAPES[name]}, outside)
    except GradeError:
        found = 0.0
    assert found == 0.0
    assert sandbox.grade({"right": 0.75}, outside) == 0.75


@pytest.mark.parametrize("name", ["finds an earlier sample", "finds an earlier sample in memory"])
def test_an_attempt_that_searches_finds_the_sample_of_its_own_call(name: str, sandbox: Sandbox) -> None:
    assert sandbox.grade({"attack": ESCAPES[name], "own": "earlier-truth"}, {}) == 1.0
