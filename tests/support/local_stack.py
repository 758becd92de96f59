"""`calibrl up` as a process, with the trainer that needs no torch."""

import os
import subprocess
import sys
from pathlib import Path

from calibrl.client import STACK_FILE
from tests.support import ROOT
from tests.support.waiting import eventually


def environment(folder: Path) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "HOME": str(folder),
        "CALIBRL_TRAINER": "tests.support.fake_trainer",
        "CALIBRL_SWEEP_SECONDS": "1",
    }


def start(folder: Path, **variables: str) -> subprocess.Popen[str]:
    """Start `calibrl up` with these additional variables; return it when it is up."""
    command = [sys.executable, "-m", "calibrl.cli", "up", "--data", str(folder)]
    env = environment(folder) | variables
    up = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        eventually(lambda: (folder / STACK_FILE).exists() or up.poll() is not None)
    except BaseException:
        up.kill()
        raise
    return up
