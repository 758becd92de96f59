"""The trainer's process: how it ends on a signal, and on a config that is wrong."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.distributed.ranks import ALONE
from calibrl_core.run.folder_lock import FolderInUseError, FolderLock
from tests.support.training import DIGITS, config, events
from tests.support.waiting import LIMIT_SECONDS


def start(tmp_path: Path, settings: Any, module: str = "train") -> subprocess.Popen[str]:
    (tmp_path / "config.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", f"calibrl_core.{module}", str(tmp_path / "config.json"), "--run-dir"]
    return subprocess.Popen([*command, str(tmp_path / "run")], stderr=subprocess.PIPE, text=True)


def test_the_process_saves_and_exits_on_sigterm(tmp_path: Path) -> None:
    process = start(tmp_path, config(steps=100_000).model_dump(mode="json"))
    assert process.stderr is not None
    for line in process.stderr:
        if "Z  step 2  " in line:
            break
    with pytest.raises(FolderInUseError):
        FolderLock(tmp_path / "run").hold(ALONE)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 0
    last = events(tmp_path / "run")[-1]
    assert (last["type"], last["status"]) == ("finish", "stopped")
    assert (tmp_path / "run" / "checkpoints" / f"step-{last['step']:06d}").is_dir()


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from calibrl_core.distributed.ranks import ALONE;"
        "from calibrl_core.run.folder_lock import FolderLock; FolderLock(Path(sys.argv[1])).hold(ALONE);"
        "print(1, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        with pytest.raises(FolderInUseError):
            FolderLock(tmp_path).hold(ALONE)
        process.kill()
    lock = FolderLock(tmp_path)
    lock.hold(ALONE)
    lock.release()


def test_the_process_reports_the_error(tmp_path: Path) -> None:
    process = start(tmp_path, {"model": {"builtin": "tiny-vlm"}, "data": DIGITS, "steps": -1})
    _, errors = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 1
    last = events(tmp_path / "run")[-1]
    assert (last["type"], last["reason"]) == ("error", "bad_spec")
    assert "steps" in last["message"]
    assert "Traceback" not in errors
