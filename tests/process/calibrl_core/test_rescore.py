"""Completions from a file scored again, batch by batch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from calibrl_core.rescore import AT_ONCE, rescore
from calibrl_core.verifiers import ExactReward, NumericReward, PluginReward
from tests.support.waiting import LIMIT_SECONDS

RIGHT, WRONG = ("<answer>7</answer>", "7"), ("<answer>8</answer>", "7")


def test_a_batch_is_reported_before_the_next_is_scored() -> None:
    unscorable: Any = (None, "7")
    batches = rescore([ExactReward()], [RIGHT] * AT_ONCE + [unscorable])
    assert [line["passed"] for line in next(batches)] == [True] * AT_ONCE


def test_a_missing_verifier_is_reported() -> None:
    ((line,),) = rescore([PluginReward(name="none")], [RIGHT])
    assert "no verifier 'none' is installed" in line["fault"]


def test_the_command(tmp_path: Path) -> None:
    given = {
        "rewards": [NumericReward().model_dump(mode="json")],
        "completions": [RIGHT, WRONG] * AT_ONCE,
        "sandbox": {},
    }
    (tmp_path / "given.json").write_text(json.dumps(given))
    command = [
        sys.executable,
        "-m",
        "calibrl_core.rescore",
        str(tmp_path / "given.json"),
        str(tmp_path / "report.jsonl"),
    ]
    subprocess.run(command, check=True, timeout=LIMIT_SECONDS)
    lines = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert [line["passed"] for line in lines] == [True, False] * AT_ONCE
    assert lines[0] == {
        "by_verifier": {"numeric": 1.0},
        "reward": 1.0,
        "passed": True,
        "strict": False,
        "failure": None,
        "failed": [],
        "seconds": {},
        "cached": [],
        "refused": [],
        "tokens": {},
    }
