"""Parts of the check on a GPU in their processes: cut, failed, and a rehearsal of all of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.gpu import results
from bench.gpu.__main__ import check
from bench.gpu.findings import CheckPart, Item, Measure, Setup
from bench.gpu.parts import PARTS
from bench.gpu.runner import run_part
from tests.process.bench.gpu_parts import dying, endless, found, raising, wrong

CPU = Setup("cpu", small=True)


def test_a_part_reports_what_it_finds_at_once() -> None:
    seen: list[Item] = []
    result = run_part(CheckPart("found", "", 60, found), CPU, seen.append)
    assert (result.status, result.error) == ("done", "")
    assert result.items == seen == [Measure("step", 2.0, "s"), "on cpu"]


def test_a_part_is_cut_at_its_limit_and_keeps_what_it_found() -> None:
    result = run_part(CheckPart("endless", "", 1, endless), CPU, lambda _: None)
    assert (result.status, result.error) == ("cut", "reached its time limit")
    assert result.items == ["before the end"]


@pytest.mark.parametrize(
    ("run", "error"),
    [
        (raising, "RuntimeError: no kernel for this card"),
        (dying, "its process ended early, with exit code 9"),
        (wrong, "1 of the checks failed"),
    ],
)
def test_a_part_that_fails_says_why(run: Callable[[Setup], Iterator[Item]], error: str) -> None:
    result = run_part(CheckPart("failing", "", 60, run), CPU, lambda _: None)
    assert result.status == "failed"
    assert result.error.startswith(error)
    assert len(result.items) == 1


def test_the_next_part_runs_after_a_failure(tmp_path: Path) -> None:
    parts = [CheckPart("raising", "", 60, raising), CheckPart("found", "", 60, found)]
    assert check(CPU, parts, tmp_path, again=False) == 1
    stored = results.load(tmp_path / "gpu-cpu-small.json")
    assert [stored[part.name].status for part in parts] == ["failed", "done"]
    assert check(CPU, parts[1:], tmp_path, again=False) == 0  # nothing runs again


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_rehearsal_runs_all_parts(tmp_path: Path) -> None:
    assert check(CPU, PARTS, tmp_path, again=False) == 0
    stored = results.load(tmp_path / "gpu-cpu-small.json")
    measures = [one for result in stored.values() for one in result.items if isinstance(one, Measure)]
    assert all(one.found is not None for one in measures)
    assert {result.status for result in stored.values()} == {"done"}
    ratio = "bfloat16: ratio before an update, largest distance from 1"
    assert [one.found for one in measures if one.measure == ratio] == [0]
    assert (tmp_path / "gpu-cpu-small.md").read_text().startswith("# Check on a GPU")
