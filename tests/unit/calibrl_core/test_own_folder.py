"""Temporary folders: those of killed runs are removed, and no others."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from calibrl_core.rollout.own_folder import OwnFolder, sweep


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """Return a folder that a killed run left: no process holds its lock."""
    folder = tmp_path / "mine-left"
    folder.mkdir()
    (folder / "weights").write_text("")
    return folder


def test_a_folder_of_a_killed_run_is_removed(tmp_path: Path, left: Path) -> None:
    own = OwnFolder("mine-", tmp_path)
    assert not left.exists()
    assert stat.S_IMODE(own.path.stat().st_mode) == 0o700
    sweep("mine-", tmp_path)
    assert own.path.exists()  # its process, this one, is alive
    own.close()
    assert not own.path.exists()


def test_other_users_and_names_stay(tmp_path: Path, left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep("other-", tmp_path)
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    sweep("mine-", tmp_path)
    assert (left / "weights").exists()


def test_a_link_and_a_file_of_that_name_stay(tmp_path: Path, left: Path) -> None:
    target = left.rename(tmp_path / "target")
    (tmp_path / "mine-link").symlink_to(target)
    (tmp_path / "mine-file").write_text("")
    sweep("mine-", tmp_path)
    assert (target / "weights").exists()
    assert (tmp_path / "mine-file").exists()


def test_a_new_folder_that_a_sweep_takes_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its creation and its lock, a folder looks like that of a killed run."""
    made: list[Path] = []
    plain = os.open

    def opening(path: Path, flags: int, **named: Any) -> int:
        made.append(path)
        if len(made) == 1:
            path.rmdir()
        return plain(path, flags, **named)

    monkeypatch.setattr(os, "open", opening)
    own = OwnFolder("mine-", tmp_path)
    assert own.path == made[-1] != made[0]
    assert own.path.exists()
    own.close()
