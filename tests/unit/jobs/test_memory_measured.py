"""The planned memory of each phase against what torch allocates on a CPU."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.planned_memory import CASES, PAGE, compare

QUICK = ("all weights",)
ALONE = [name for name, changes in CASES.items() if "parallel" not in changes]  # of others tests/process has the test


@pytest.mark.parametrize("name", [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in ALONE])
def test_the_plan_is_within_a_tenth_of_the_measured_peaks(tmp_path: Path, name: str) -> None:
    if "4 bits" in name and find_spec("bitsandbytes") is None:
        pytest.skip("calibrl[quantization] is not installed")
    planned, found = compare(CASES[name], tmp_path)
    assert {phase: planned[phase] / size for phase, size in found.items()} == pytest.approx(
        dict.fromkeys(found, 1.0), abs=0.1
    )


def test_the_page_lists_every_configuration_and_none_is_far_off() -> None:
    rows = re.findall(r"^\| (?!Configuration )(\w.*?) +\|(.*)\|$", PAGE.read_text(), re.MULTILINE)
    assert [name for name, _ in rows] == [*CASES]
    ratios = [float(ratio) for _, cells in rows for ratio in re.findall(r"= (\d\.\d\d)", cells)]
    assert len(ratios) == 4 * len(CASES)
    assert all(0.9 <= ratio <= 1.1 for ratio in ratios)
