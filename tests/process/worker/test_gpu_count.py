"""The command that counts a machine's cards, through the fake NVML."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT
from tests.support.fake_nvml import Card, environment, write
from tests.support.waiting import LIMIT_SECONDS


def test_processes_see_fake_gpus(tmp_path: Path) -> None:
    write(tmp_path / "cards.json", [Card(), Card()])
    shown = environment(tmp_path / "cards.json", dict(os.environ))
    command = [sys.executable, "-m", "worker.gpus"]
    run = subprocess.run(command, cwd=ROOT, env=shown, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert (run.returncode, run.stdout, run.stderr) == (0, "2\n", "")
