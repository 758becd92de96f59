"""Commands of the local stack, without a stack: files with secrets, and files of a killed stack."""

from pathlib import Path
from typing import Any

import pytest

from calibrl.client import STACK_FILE
from calibrl.folder_lock import folder_lock
from calibrl.stack.local import LocalStack, StackError

from .conftest import calibrl, fault


def test_only_the_owner_can_read_the_log_of_a_detached_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "data/logs/up.log"
    log.parent.mkdir(parents=True)
    log.touch(mode=0o644)  # of an earlier version

    class Ended:
        def __init__(self, *_: object, stdout: Any, **options: object) -> None:
            stdout.write(b"http://127.0.0.1/signin?token=secret\n")

        def poll(self) -> int:
            return 1

    monkeypatch.setattr("calibrl.commands.local_stack.subprocess.Popen", Ended)
    assert calibrl("up", "--detach", "--data", tmp_path / "data").exit_code == 1
    assert b"token=secret" in log.read_bytes()
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_starting_stack_removes_the_file_of_a_killed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = tmp_path / STACK_FILE
    stale.write_text('{"api_url": "http://127.0.0.1:1", "api_key": "k", "pid": 1}')

    def fail(stack: LocalStack) -> None:
        raise StackError("its first own step")

    monkeypatch.setattr(LocalStack, "_identity", fail)
    with pytest.raises(StackError, match="its first own step"), LocalStack(tmp_path):
        pass
    assert not stale.exists()


def test_down_signals_nothing_while_a_stack_starts(tmp_path: Path) -> None:
    with folder_lock(tmp_path):
        assert "is starting or stopping: try again" in fault(calibrl("down", "--data", tmp_path), 1)
    assert calibrl("down", "--data", tmp_path).stdout == f"No service runs on {tmp_path}.\n"


@pytest.mark.parametrize(
    ("home", "folder", "expected"),
    [
        ("/home/ann", "/work", "/home/ann:/data:/work"),
        ("/home/ann", "/", "/home/ann:/data"),  # started in the root of the file system
        ("/", "/data", "/data"),
        ("/a:b", "/work", "/data:/work"),  # a colon separates folders
    ],
)
def test_jobs_of_a_local_stack_read_from_own_folders(
    monkeypatch: pytest.MonkeyPatch, home: str, folder: str, expected: str
) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path(home))
    monkeypatch.setattr(Path, "cwd", lambda: Path(folder))
    stack = LocalStack(Path("/data"))
    assert stack._local_settings()["CALIBRL_ALLOWED_ROOTS"] == expected
    monkeypatch.setenv("CALIBRL_ALLOWED_ROOTS", "/models")
    assert LocalStack(Path("/data"))._local_settings()["CALIBRL_ALLOWED_ROOTS"] == "/models"
