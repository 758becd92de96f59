"""The lock of a run folder: a second run writes nothing, and an ended run leaves no lock."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.config import TrainConfig
from calibrl_core.distributed.ranks import ALONE, Ranks
from calibrl_core.run.folder_lock import FolderInUseError, FolderLock
from calibrl_core.run.process import run_process
from calibrl_core.train import train
from tests.support.training import config


class Second(Ranks):
    rank, world = 1, 2


def test_a_second_run_is_refused_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "events.jsonl").write_text('{"type":"sta')  # the other run is writing this line
    lock = FolderLock(folder)
    lock.hold(ALONE)
    (tmp_path / "config.json").write_text(json.dumps(config().model_dump(mode="json")))
    monkeypatch.setattr(sys, "argv", ["train", str(tmp_path / "config.json"), "--run-dir", str(folder)])
    monkeypatch.setattr("calibrl_core.run.process.StopSignal.listen", lambda _: None)
    with pytest.raises(SystemExit) as ended:
        run_process(TrainConfig, train)
    lock.release()
    assert ended.value.code == 1
    (sentence,) = capfd.readouterr().err.splitlines()
    assert sentence == (f"--run-dir: another run is writing to {folder}; wait until it ends, or choose another folder")
    assert {path.name for path in folder.iterdir()} == {".lock", "events.jsonl"}
    assert (folder / "events.jsonl").read_text() == '{"type":"sta'


def test_a_released_lock_can_be_held_again(tmp_path: Path) -> None:
    for _ in range(2):
        lock = FolderLock(tmp_path)
        lock.hold(ALONE)
        with pytest.raises(FolderInUseError):
            FolderLock(tmp_path).hold(ALONE)
        lock.release()


def test_only_the_first_process_of_a_run_holds_the_lock(tmp_path: Path) -> None:
    FolderLock(tmp_path).hold(Second())
    lock = FolderLock(tmp_path)
    lock.hold(ALONE)
    lock.release()


def test_all_processes_of_a_refused_run_raise(tmp_path: Path) -> None:
    class Refused(Second):
        def from_first(self, value: Any) -> Any:
            return True  # the first process did not get the lock

    with pytest.raises(FolderInUseError):
        FolderLock(tmp_path).hold(Refused())


def test_a_file_system_without_locks_is_not_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(handle: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", without)
    FolderLock(tmp_path).hold(ALONE)
