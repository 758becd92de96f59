"""The sandbox: what a function sees and returns, what it can import, and what a machine without bubblewrap says."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.verifiers.sandbox import GradeError, Sandbox, SandboxError, SandboxPolicy, sandbox_problem

needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")

# `grade` returns the value of an expression over `sample` and `item`.
EVALUATES = """
import dataclasses, decimal, fractions, json, math, re, statistics

seen = []

@dataclasses.dataclass
class Found:
    value: "float"

def grade(sample, item):
    seen.append(item)
    return Found(eval(sample["value"])).value
"""


def started(source: str = EVALUATES, *, packages: tuple[str, ...] = (), confined: bool = True) -> Sandbox:
    return Sandbox(source, memory_bytes=2**29, seconds=5, packages=packages, confined=confined)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with started() as running:
        yield running


@needs_bubblewrap
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.25", 0.25),
        ("1", 1.0),
        ("True", 1.0),
        ("fractions.Fraction(1, 4)", 0.25),
        ("decimal.Decimal('0.5')", 0.5),
        ("[*map(ord, item['answer'])] == [0xe9, 0x1f600, 0xd800]", 1.0),
        ("len(seen) / 4", 0.25),  # a fresh module per call
        ("sample['choices'][0]['n'] / item['n']", 0.75),
    ],
)
def test_it_returns_what_grade_returns(sandbox: Sandbox, value: str, expected: float) -> None:
    item = {"answer": "é\U0001f600\ud800", "n": 4}
    assert sandbox.grade({"value": value, "choices": [{"n": 3}]}, item) == expected


@needs_bubblewrap
@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("float('nan')", "ValueError: grade returned nan; it must return a number from 0 to 1"),
        ("math.inf", "ValueError: grade returned inf; it must return a number from 0 to 1"),
        ("-0.01", "ValueError: grade returned -0.01; it must return a number from 0 to 1"),
        ("1.01", "ValueError: grade returned 1.01; it must return a number from 0 to 1"),
        ("10**400", "OverflowError: int too large to convert to float"),
        ("'1'", "TypeError: grade returned str; it must return a number from 0 to 1"),
        ("None", "TypeError: grade returned NoneType; it must return a number from 0 to 1"),
        ("[1.0]", "TypeError: grade returned list; it must return a number from 0 to 1"),
        ("1j", "TypeError: grade returned complex; it must return a number from 0 to 1"),
        (
            "type('Odd', (), {'__float__': lambda self: 'x'})()",
            "TypeError: Odd.__float__ returned non-float (type str)",
        ),
        ("1 / 0", "line 12: ZeroDivisionError: division by zero"),
        ("item['none']", "line 12: KeyError: 'none'"),
        (
            "1 if 'x' * 600 in {} else int('x' * 600)",
            "line 12: ValueError: invalid literal for int() with base 10: 'xx",
        ),
    ],
)
def test_anything_else_is_an_error_with_its_line(sandbox: Sandbox, value: str, why: str) -> None:
    with pytest.raises(GradeError) as caught:
        sandbox.grade({"value": value}, {})
    assert str(caught.value).startswith(why)
    assert len(str(caught.value)) <= 500
    assert sandbox.grade({"value": "0.5"}, {}) == 0.5


@needs_bubblewrap
def test_no_process_of_the_sandbox_has_a_capability(sandbox: Sandbox) -> None:
    assert sandbox._process
    first = children_of(sandbox._process.pid)[0]
    for process in (first, children_of(first)[0]):
        status = Path(f"/proc/{process}/status").read_text()
        for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert f"{kind}:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@needs_bubblewrap
def test_a_sandbox_that_is_killed_starts_again() -> None:
    with started() as sandbox:
        assert sandbox._process
        os.kill(sandbox._process.pid, signal.SIGKILL)
        with pytest.raises(GradeError, match="the sandbox ended during this call"):
            sandbox.grade({"value": "1"}, {})
        assert sandbox.grade({"value": "1"}, {}) == 1.0


@needs_bubblewrap
def test_scratch_files_can_be_used_within_a_call() -> None:
    source = """
import pathlib, tempfile
def grade(sample, item):
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "x")
        file.write_text("0.5")
        return float(file.read_text())
"""
    with started(source) as sandbox:
        assert [sandbox.grade({}, {}) for _ in range(2)] == [0.5, 0.5]


@needs_bubblewrap
def test_packages_that_are_allowed_can_be_imported() -> None:
    source = "import numpy\ndef grade(sample, item): return numpy.float32(numpy.mean(item['values']))"
    with started(source, packages=("numpy",)) as sandbox:
        assert sandbox.grade({}, {"values": [0.25, 0.75]}) == 0.5
    with started(source) as sandbox, pytest.raises(GradeError, match=r"line 1: ModuleNotFoundError: .*'numpy'"):
        sandbox.grade({}, {"values": [0.25, 0.75]})


def test_an_allowed_package_must_be_installed() -> None:
    with pytest.raises(SandboxError, match="the package 'no-such-package', allowed in the sandbox, is not installed"):
        started(packages=("no-such-package",))


@needs_bubblewrap
def test_an_error_at_the_top_level_is_an_error_of_each_call() -> None:
    with started("x = 1\n1 / 0\ndef grade(sample, item): return 1.0") as sandbox:
        for _ in range(2):
            with pytest.raises(GradeError, match="line 2: ZeroDivisionError"):
                sandbox.grade({}, {})


@pytest.fixture
def no_memory() -> Iterator[None]:
    """Let this process try the sandbox again, now and after the test."""
    sandbox_problem.cache_clear()
    yield
    sandbox_problem.cache_clear()


@pytest.mark.usefixtures("no_memory")
def test_without_bubblewrap_the_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SandboxError) as caught:
        SandboxPolicy().confines()
    assert str(caught.value) == (
        "this machine has no sandbox for functions of users: bubblewrap is not installed: "
        "install the package bubblewrap, which has the command bwrap"
    )
    assert SandboxPolicy(plain_processes=True).confines() is False


@pytest.mark.usefixtures("no_memory")
def test_a_kernel_that_refuses_namespaces_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(refusing))
    assert sandbox_problem() == "the sandbox does not start: bwrap: No permissions to create new namespace"


@needs_bubblewrap
@pytest.mark.usefixtures("no_memory")
def test_plain_processes_are_used_only_without_a_sandbox() -> None:
    assert SandboxPolicy().confines() is True
    assert SandboxPolicy(plain_processes=True).confines() is True


def test_a_plain_process_is_filtered_but_reads_the_machines_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("0.5")
    reads: dict[str, Any] = {"value": f"float(open({str(tmp_path / 'file')!r}).read())"}
    with started(confined=False) as sandbox:
        assert sandbox.grade(reads, {}) == 0.5
        with pytest.raises(GradeError, match="PermissionError"):
            sandbox.grade({"value": "__import__('os').fork()"}, {})
        with pytest.raises(GradeError, match="PermissionError"):
            sandbox.grade({"value": "bool(__import__('socket').socket())"}, {})
        assert sandbox.grade({"value": "'PATH' in __import__('os').environ"}, {}) == 0.0
