"""Hostile files cost a submission, a plan and a report less than 2 s of the CPU and 200 MB, measured in processes."""

import json
import subprocess
import sys

import pytest

from tests.support import ROOT

SEEDS, FILES, SECONDS, MEGABYTES = range(7, 17), 500, 2.0, 200.0
IN_ALL = 3  # of the seeds in `make test-all`; the others take a quarter of an hour: `make fuzz-data`
LONGEST = 600  # seconds for the files of a part


@pytest.mark.parametrize(
    "seed",
    [
        *(pytest.param(seed, marks=pytest.mark.slow) for seed in SEEDS[:IN_ALL]),
        *(pytest.param(seed, marks=pytest.mark.fuzz) for seed in SEEDS[IN_ALL:]),
    ],
)
def test_hostile_files_cost_little_and_crash_nothing(seed: int) -> None:
    command = [sys.executable, "-m", "tests.support.hostile_data", str(seed), str(FILES)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST)
    assert run.returncode == 0, run.stderr[-2_000:]
    cost = json.loads(run.stdout.splitlines()[-1])
    assert cost["faults"] == []
    assert cost["files"] == FILES
    assert cost["seconds"] < SECONDS, cost["slowest"]
    assert cost["megabytes"] < MEGABYTES
